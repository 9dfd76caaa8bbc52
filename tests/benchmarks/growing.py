"""A dataset that grows: the demo's scenes in ten nights, against one run of them all.

    python tests/benchmarks/growing.py [--nights 10] [--scenes N] [--work FOLDER]

Three histories of one config, by the rule `paper`, which asks how far a region lies from its tag's centres:
nights that keep the centres (`cluster.from`), nights that make them anew, and one run. Printed is what every
night made, what models were asked, and what became of the shards that were there; and of the histories, how
many decisions differ, and how good they are against the truth. The nights that make centres anew, which costs
no model, take the parts of models from the first history (`reuse`).
"""

import argparse
import io
import resource
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions
from figures import say

from tagmill.pipeline.config import make_config
from tagmill.pipeline.growth import Holdings
from tagmill.pipeline.job import Job
from tagmill.pipeline.progress import Extent
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import read_truth, score_run
from tagmill.runners.commands.demo import embedded
from tagmill.runners.commands.demo_config import demo_config, demo_models
from tagmill.runners.local import LocalEngine
from tagmill.tag_system.core.config import parse_yaml
from tagmill.transforms import parts

MODELS = ("tag", "localize", "embed")
Decisions = dict[tuple[str, int, str], tuple[str, str]]


class Counting(LocalEngine):
    """The local engine in this process; it remembers which tasks it was given, by stage."""

    def __init__(self) -> None:
        super().__init__(0, PipelineOptions([]))
        self.tasks: dict[str, list[str]] = {}

    def execute(self, job: Job) -> None:
        self.tasks.setdefault(job.name, []).extend(task.name for task in job.tasks)
        super().execute(job)


class Silent:
    def start(self, stage: str, extent: Extent) -> None: ...

    @contextmanager
    def watch(self, stage: str, count: Any) -> Iterator[None]:
        yield

    def finish(self, stage: str, examples: int, dead: int) -> None: ...


def write_nights(folder: Path, nights: int, scenes: int | None) -> list[Path]:
    """Deal the demo's scenes out to so many tars, in their order."""
    members: list[tuple[str, bytes]] = []
    for path in sorted(embedded().glob("scenes-*.tar")):
        with tarfile.open(path) as archive:
            members += [(one.name, archive.extractfile(one).read()) for one in archive]  # type: ignore[union-attr]
    keys = sorted({name.rpartition(".")[0] for name, _ in members})[:scenes]
    night_of = {key: place * nights // len(keys) for place, key in enumerate(keys)}
    tars = [folder / f"night-{number:02d}.tar" for number in range(nights)]
    folder.mkdir(parents=True)
    for number, tar in enumerate(tars):
        with tarfile.open(tar, "w") as archive:
            for name, data in members:
                if night_of.get(name.rpartition(".")[0]) == number:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return tars


def make(run: Path, tars: list[Path], rule: str = "paper", **changes: Any) -> tuple[Driver, Counting, float]:
    """Make a run over these tars; returns the CPU seconds too."""
    values = parse_yaml(demo_config(str(run), embedded(), None) + demo_models(embedded()))
    values["inputs"][0]["path"] = list(map(str, tars))
    values["clean"]["policy"]["rule"] = rule
    values["shards"]["size"] = 200
    before, engine = cpu(), Counting()
    driver = Driver(make_config(values | changes, "demo"))
    driver.run(engine, Silent())
    return driver, engine, cpu() - before


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def say_night(
    name: str, driver: Driver, engine: Counting, seconds: float, before: Holdings | None
) -> Holdings:
    """Say what a night made."""
    asked: Counter[str] = Counter()
    for stage in MODELS:
        known = driver.upstream.records[stage].parts
        for part in set(engine.tasks.get(stage, [])):
            asked.update(known[part].notes["batches"])
    made = {stage: len(set(engine.tasks.get(stage, ()))) for stage in ("ingest", *MODELS, "clean", "shards")}
    now = Holdings.of(driver.upstream.records)
    assert now is not None
    kept = sum(now.shards.get(shard) == digest for shard, digest in before.shards.items()) if before else 0
    for stage, count in made.items():
        say("growing", f"{name}: made for {stage}", count, "shards" if stage == "shards" else "parts")
    say("growing", f"{name}: images that models were asked about, over all models", asked["images"], "images")
    say("growing", f"{name}: forwards of models", asked["forwards"], "forwards")
    if before:
        say("growing", f"{name}: shards before it", len(before.shards), "shards")
        say("growing", f"{name}: shards that are as they were", kept, "shards")
    say("growing", f"{name}: time", seconds, "CPU s")
    return now


def grow(run: Path, tars: list[Path], name: str, **changes: Any) -> None:
    held = None
    for night in range(len(tars)):
        driver, engine, seconds = make(run, tars[: night + 1], **changes)
        held = say_night(f"{name} {night + 1}", driver, engine, seconds, held)


def decisions(driver: Driver) -> Decisions:
    """Read verdict and rule of every decision of a run."""
    plan, found = driver.upstream.plans["clean"], {}
    for part in driver.upstream.records["clean"].parts:
        table = pq.read_table(parts.part_uri(plan.folder, part), columns=["row", "tag", "verdict", "rule"])
        for one in table.to_pylist():
            found[part, one["row"], one["tag"]] = (one["verdict"], one["rule"])
    return found


def say_difference(name: str, one: Decisions, other: Decisions) -> None:
    verdicts = [key for key in one if one[key][0] != other.get(key, ("", ""))[0]]
    rules = Counter(" and ".join(sorted({one[key][1], other[key][1]})) for key in verdicts)
    images = {key[:2] for key in verdicts}
    assert one.keys() == other.keys()
    say("growing", f"{name}: decisions", len(one), "decisions")
    say("growing", f"{name}: decisions that differ", len(verdicts), "decisions")
    say("growing", f"{name}: images in which they differ", len(images), "images")
    for rule, count in rules.items():
        say("growing", f"{name}: decisions that differ by {rule}", count, "decisions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nights", type=int, default=10)
    parser.add_argument("--scenes", type=int, help="the first so many; default: all")
    parser.add_argument("--work", type=Path, default=None, help="an empty folder; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = options.work or Path(temporary)
        tars = write_nights(work / "data", options.nights, options.scenes)
        kept, anew, whole = work / "kept", work / "anew", work / "whole"
        frozen = {"cluster": {"from": str(kept)}}
        grow(kept, tars, "centres kept", **frozen)
        say_night("one run", *make(whole, tars), None)
        grow(anew, tars, "centres anew", reuse=[str(kept)])
        truth = read_truth(str(embedded() / "truth.parquet"))
        for rule in ("paper", "adaptive"):
            found = {
                name: (decisions(make(run, tars, rule, **changes)[0]), score_run(RunFolder(str(run)), truth))
                for name, run, changes in (("kept", kept, frozen), ("anew", anew, {}), ("one run", whole, {}))
            }
            for name in ("kept", "anew"):
                say_difference(f"{rule}, centres {name} against one run", found[name][0], found["one run"][0])
            for name, (_, scores) in found.items():
                one = scores["clean"].micro()
                for what, value in {"precision": one.precision, "recall": one.recall, "F1": one.f1}.items():
                    say("growing", f"{rule}, {name}: {what}", value)


if __name__ == "__main__":
    sys.exit(main())
