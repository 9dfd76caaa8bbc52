"""Tries a run in every way that is promised to do it no harm, and prints one table: see docs/trust.md.

python tests/support/trust.py [FOLDER]
"""

import importlib
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

import corruptions
from commands import call
from forked import Outcome, run_forked
from hostile_inputs import GOOD, Hostile, huge, inputs
from kills import kills
from runs import Quiet, current_record, damaged, drive, rows_of, shard_bytes, squares_config
from tagmill.models import base
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.pipeline.study.report import write_report
from tagmill.runners.commands.demo import embedded
from tagmill.runners.local import LocalEngine
from tagmill.tag_system.core.errors import DamageError, InputChangedError

ROOM = 2 << 30
"""Address space of a child over what it begins with; threads reserve much that they never use."""

PEAK = 1 << 30
"""Memory that a child may take over what it begins with."""

SECONDS = 30
"""CPU time of a child that meets one hostile input."""


@dataclass(frozen=True)
class Line:
    """A line of the table: what was tried how often, what was wrong, and what it took at most."""

    what: str
    tried: int
    wrong: list[str]
    seconds: float
    peak: int = 0
    cpu: float = 0.0


def killed(folder: Path, workers: int, count: int, *, takedown: bool = False) -> Line:
    """Kill the driver at `count` of its file operations; each run is then gone on with."""
    start = time.monotonic()
    found = list(kills(folder, workers, count, takedown=takedown))
    wrong = [f"killed at {kill.at} ({kill.operation}): {kill.wrong}" for kill in found if kill.wrong]
    of = "driver in a takedown" if takedown else "driver"
    what = f"kills of the {of}, {workers} workers, in {_stages(kill.at for kill in found)} stages"
    return Line(what, len(found), wrong, time.monotonic() - start)


def killed_apart(folder: str, workers: int, count: int) -> list[Any]:
    """As `killed`, for a process of its own; gives how often it was tried, and what was wrong."""
    line = killed(Path(folder), workers, count)
    return [line.tried, line.wrong]


def _stages(places: Iterator[str]) -> int:
    return len({place.partition("/")[0] for place in places})


def hostile(folder: Path, every: int = 1) -> Line:
    """Run all stages over each `every`-th hostile input, in a child of bounded memory and time."""
    for library in base.imports_of("ram"):  # here, and not in each child
        importlib.import_module(library)
    start = time.monotonic()
    wrong, outcomes = [], []
    for one in list(inputs())[::every] if every > 1 else chain(inputs(), huge()):
        outcome = run_forked(partial(_meet, folder / "hostile", one), ROOM, SECONDS)
        outcomes.append(outcome)
        if problem := _problem(one, outcome):
            wrong.append(f"{one.name}: {problem}")
        shutil.rmtree(folder / "hostile", ignore_errors=True)
    peak, cpu = max(one.peak for one in outcomes), max(one.seconds for one in outcomes)
    return Line("hostile inputs", len(outcomes), wrong, time.monotonic() - start, peak, cpu)


def _meet(folder: Path, one: Hostile) -> dict[str, int | bool]:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.tar").write_bytes(one.tar)
    # The models of squares look at every pixel at once; a real one prepares images first.
    tagger = {"model": "ram", "options": {"path": str(embedded() / "tagger"), "device": "cpu"}}
    off = {"localize": None, "embed": None}
    inputs = [{"name": "squares", "format": "webdataset", "path": str(folder / "data" / "*.tar")}]
    changes = {"inputs": inputs, "max_dead_fraction": 1, "parse": {"mode": "fast"}, "tag": tagger, **off}
    config = squares_config(folder, {}, **changes)
    driver = Driver(load_config(str(config)))
    driver.run(LocalEngine(0, PipelineOptions([])), Quiet())
    write_report(driver.run_folder, driver.vocabulary)
    record = current_record(folder / "run", "ingest")
    counts = {what: record.count("example", what) for what in ("in", "out", "dead")}
    lives = f"squares/{GOOD[0]}" in {row["key"] for row in rows_of(folder / "run", "ingest")}
    return {**counts, "lives": lives, "damaged": len(damaged(folder / "run"))}


def _problem(one: Hostile, outcome: Outcome) -> str:
    if outcome.signal or outcome.error:
        return outcome.error.strip().rpartition("\n")[2] or f"the run died of signal {outcome.signal}"
    found = outcome.result
    if outcome.peak > PEAK:
        return f"it took {outcome.peak >> 20} MB"
    if found["in"] != found["out"] + found["dead"] or found["damaged"]:
        return f"it does not add up: {found}"
    if one.is_whole and not found["lives"]:
        return f"the good example beside it did not live: {found}"
    return ""


def flipped(folder: Path, count: int) -> Line:
    """Flip `count` bits of a finished run, one after the other; each has to be found by `verify`."""
    start = time.monotonic()
    config = squares_config(folder, parse={"mode": "fast"}, features={"model": "square_models:SquareTeacher"})
    driver = Driver(load_config(str(config)))
    driver.run(LocalEngine(0, PipelineOptions([])), Quiet())
    write_report(driver.run_folder, driver.vocabulary)
    run = folder / "run"
    paths = [path for path in sorted(run.rglob("*")) if path.is_file() and path.parent.name != "tokens"]
    dice, wrong = random.Random(17), []
    for _ in range(count):
        path = dice.choice(paths)
        before = path.read_bytes()
        place = dice.randrange(len(before))
        bit = bytes([before[place] ^ 1 << dice.randrange(8)])
        path.write_bytes(before[:place] + bit + before[place + 1 :])
        if not damaged(run):
            wrong.append(f"{path.relative_to(run)}, byte {place}")
        path.write_bytes(before)
    return Line("flipped bits", count, wrong, time.monotonic() - start)


def corrupted(folder: Path, every: int = 1, then_every: int = 1) -> Line:
    """Plant each `every`-th corruption in a copy of a finished run: `verify` must exit with 5 and name it.

    For each `then_every`-th of these, see what the next run does.

    The runs are made, unless `corruptions.make_runs` has made them in the folder already.
    """
    start = time.monotonic()
    config = folder / "it" / "config.yaml"
    if not config.exists():
        corruptions.make_runs(folder)
    chosen, wrong = corruptions.ALL[::every], []
    expected = shard_bytes(folder / "runs" / "run")
    for number, one in enumerate(chosen):
        copy = Path(shutil.copytree(folder / "runs", folder / "copy"))
        try:
            path = one.plant(copy / "run")
            named, said = _verified(copy / "run")
            if str(path) not in said:
                wrong.append(f"{one.name}: verify did not name {path}")
            elif number % then_every == 0:
                problem = _then(config, copy / "run", one.then, named, expected)
                wrong += [f"{one.name}: {problem}"] if problem else []
        finally:
            shutil.rmtree(copy)
    return Line("corruptions", len(chosen), wrong, time.monotonic() - start)


def _verified(run: Path) -> tuple[list[Path], str]:
    """Run `tagmill verify`, which must exit with 5; gives the files that it names, and all that it says."""
    said = "".join(call("verify", run, code=5))
    found = (
        re.match(rf"(?:  |tagmill: )({re.escape(str(run))}/[^\s:]+)", line) for line in said.splitlines()
    )
    return [Path(match[1]) for match in found if match], said


def _then(config: Path, run: Path, then: str, named: list[Path], expected: dict[str, str]) -> str:
    """Go on with a damaged run, and once more without what was named; says what is wrong with what it did."""
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"run": str(run)}))
    found = _gone_on(config, run, expected)
    if found.partition(":")[0] != then:
        return f"the next run was {found}, and not {then}"
    for path in named:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    found = _gone_on(config, run, expected)
    return "" if found == "repaired" else f"without what was named, the next run was {found}"


def _gone_on(config: Path, run: Path, expected: dict[str, str]) -> str:
    try:
        drive(config)
    except (DamageError, InputChangedError) as error:
        return f"refused: {error}"
    if problems := damaged(run):
        return f"unseen: {problems[0]}"
    return "repaired" if shard_bytes(run) == expected else "unseen: its shards are others"


def main(folder: Path) -> int:
    """Try everything and print the table; returns how much was wrong."""
    tries: list[Callable[[], Line]] = [
        lambda: killed(folder / "kills", 0, 30),
        lambda: killed(folder / "kills", 2, 12),
        lambda: killed(folder / "takedown", 0, 30, takedown=True),
        lambda: hostile(folder),
        lambda: flipped(folder / "flips", 200),
        lambda: corrupted(folder / "corruptions"),
    ]
    lines = []
    for one in tries:
        lines.append(one())
        for problem in lines[-1].wrong:
            sys.stdout.write(f"WRONG {lines[-1].what}: {problem}\n")
    sys.stdout.write(
        "\n| tried | times | wrong | wall s | peak MB | most CPU s |\n|---|---|---|---|---|---|\n"
    )
    for line in lines:
        most = f"{line.peak >> 20 or ''} | {line.cpu or '':.3}" if line.peak else " | "
        sys.stdout.write(
            f"| {line.what} | {line.tried} | {len(line.wrong)} | {line.seconds:.0f} | {most} |\n"
        )
    return sum(len(line.wrong) for line in lines)


if __name__ == "__main__":
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(min(1, main(Path(given[0] if given else scratch))))
