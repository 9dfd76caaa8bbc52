"""Kills a driver at exact file operations, and sees what the next one makes of what it left."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from forked import run_forked
from runs import Quiet, damaged, shard_bytes, squares_config
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.pipeline.study.report import write_report
from tagmill.runners.local import LocalEngine

OPERATIONS = ("link", "replace", "rename", "unlink")
"""What gives files their names, and takes them."""


@dataclass(frozen=True)
class Kill:
    """A kill: with how many workers, at which operation of the driver, in which stage, and what was wrong
    with the run that was then gone on with; nothing, if all is well."""

    workers: int
    operation: int
    at: str
    wrong: str


def kills(folder: Path, workers: int, count: int, *, takedown: bool = False) -> Iterator[Kill]:
    """Kill a run of all stages `count` times, evenly over its operations, each from the beginning.

    With `takedown`, a run is killed that is whole but for what is now excluded.
    """
    if takedown:
        made = run_forked(lambda: _drive(_config(folder / "whole"), workers, _count))
        assert not made.error, made.error
    expected_run = folder / "expected"
    config = _begin(folder, expected_run, takedown)
    made = run_forked(lambda: _drive(config, workers, _count))
    assert not made.error, made.error
    total, expected = made.result, shard_bytes(expected_run / "run")
    for number in range(count):
        operation = 1 + number * total // count
        place = folder / f"killed-{workers}-{operation}"
        config = _begin(folder, place, takedown)
        log = place / "operations"
        died = run_forked(partial(_drive, config, workers, _killer(operation, log)))
        at = log.read_text() if log.exists() else "?"
        wrong = "" if died.signal == signal.SIGKILL else f"it was not killed: {died.error}"
        again = run_forked(partial(_drive, config, workers, _count))
        if again.error or again.signal:
            wrong = again.error or f"the next run died of signal {again.signal}"
        elif shard_bytes(place / "run") != expected:
            wrong = "the shards are not those of a run that was not killed"
        elif problems := damaged(place / "run"):
            wrong = problems[0]
        yield Kill(workers, operation, at, wrong)
        shutil.rmtree(place)


def _begin(folder: Path, place: Path, takedown: bool) -> Path:
    if not takedown:
        return _config(place)
    shutil.copytree(folder / "whole", place)
    excluded = place / "excluded.txt"
    excluded.write_text("squares/000003\nsquares/000009\n")
    return _config(place, {}, str(excluded))


TARS = {"a.tar": (7, 0), "b.tar": (6, 7)}


def _config(folder: Path, tars: Mapping[str, tuple[int, int]] = TARS, exclude: str | None = None) -> Path:
    squares = {"name": "squares", "format": "webdataset", "path": str(folder / "data" / "*.tar")}
    return squares_config(
        folder,
        tars,
        inputs=[squares | {"labels": "truth", "exclude": exclude}],
        caption={"model": "square_models:SquareCaptioner"},
        parse={"mode": "fast"},
        features={"model": "square_models:SquareTeacher"},
        part_size=4,
        shards={"size": 8},
    )


def _drive(config: Path, workers: int, watch: Callable[[dict[str, Any]], None]) -> int:
    """Make a run whole and its report, and count the operations of this process."""
    state: dict[str, Any] = {"count": 0, "watch": watch}
    for name in OPERATIONS:
        setattr(os, name, _counted(getattr(os, name), state))
    driver = Driver(load_config(str(config)))
    driver.run(LocalEngine(workers, PipelineOptions([])), Quiet())
    write_report(driver.run_folder, driver.vocabulary)
    return int(state["count"])


def _counted(operation: Callable[..., Any], state: dict[str, Any]) -> Callable[..., Any]:
    def called(*arguments: Any, **more: Any) -> Any:
        state["count"] += 1
        state["at"] = str(arguments[-1])
        state["watch"](state)
        return operation(*arguments, **more)

    return called


def _count(_state: dict[str, Any]) -> None:
    """Let everything pass."""


def _killer(operation: int, log: Path) -> Callable[[dict[str, Any]], None]:
    def kill(state: dict[str, Any]) -> None:
        if state["count"] == operation:
            log.write_text(state["at"].partition("/run/")[2])
            os.kill(os.getpid(), signal.SIGKILL)

    return kill
