"""Tries a run in every way that is promised to do it no harm, and prints one table: see docs/trust.md.

python tests/support/trust.py [FOLDER]
"""

import importlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from forked import Outcome, run_forked
from hostile_inputs import GOOD, Hostile, inputs
from kills import kills
from runs import Quiet, current_record, damaged, rows_of, squares_config
from tagmill.models import base
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.pipeline.study.report import write_report
from tagmill.runners.commands.demo import embedded
from tagmill.runners.local import LocalEngine

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


def _stages(places: Iterator[str]) -> int:
    return len({place.partition("/")[0] for place in places})


def hostile(folder: Path, every: int = 1) -> Line:
    """Run all stages over each `every`-th hostile input, in a child of bounded memory and time."""
    for library in base.imports_of("ram"):  # here, and not in each child
        importlib.import_module(library)
    start = time.monotonic()
    wrong, outcomes = [], []
    for one in list(inputs())[::every]:
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
    config = squares_config(folder, {}, max_dead_fraction=1, parse={"mode": "fast"}, tag=tagger, **off)
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


def main(folder: Path) -> int:
    """Try everything and print the table; returns how much was wrong."""
    tries: list[Callable[[], Line]] = [
        lambda: killed(folder / "kills", 0, 30),
        lambda: killed(folder / "kills", 2, 12),
        lambda: killed(folder / "takedown", 0, 30, takedown=True),
        lambda: hostile(folder),
        lambda: flipped(folder / "flips", 200),
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
