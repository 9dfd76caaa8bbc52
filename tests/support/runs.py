"""Runs of the engine over the coloured squares: driven in this process, or by the command line."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from sources import write_config, write_squares
from tagmill.pipeline import ledger
from tagmill.pipeline.config import load_config
from tagmill.pipeline.job import Job
from tagmill.pipeline.plan import StagePlan
from tagmill.pipeline.progress import Extent
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.report import write_report
from tagmill.pipeline.verify import verify
from tagmill.runners.local import LocalEngine
from warm import run_warm

SUPPORT = Path(__file__).parent

STAGES = ["ingest", "duplicates", "tag", "candidates", "localize", "embed", "cluster", "clean", "shards"]
"""What a run of `squares_config` is made of, in order."""


class Quiet:
    """Progress that nobody watches; it remembers the stages."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, int]] = []
        self.finished: list[tuple[str, int, int]] = []

    def start(self, stage: str, extent: Extent) -> None:
        self.started.append((stage, extent.done, extent.total))

    @contextmanager
    def watch(self, stage: str, count: Callable[[], int]) -> Iterator[None]:
        yield

    def finish(self, stage: str, examples: int, dead: int) -> None:
        self.finished.append((stage, examples, dead))


class CountingEngine(LocalEngine):
    """The local engine in this process; it remembers which tasks it was given, by stage."""

    def __init__(self) -> None:
        super().__init__(0, PipelineOptions([]))
        self.jobs: list[tuple[str, list[str]]] = []

    def execute(self, job: Job) -> None:
        self.jobs.append((job.name, [task.name for task in job.tasks]))
        super().execute(job)

    @property
    def stages(self) -> list[str]:
        return [name for name, _ in self.jobs]

    def tasks(self, stage: str) -> list[str]:
        return [task for name, tasks in self.jobs if name == stage for task in tasks]


STRICT = ("clean.policy.adaptive.weak_box=0.90005", "clean.policy.adaptive.strong_box=0.95")
"""The boxes of the squares score 0.9: now they are too weak, by a hair."""


def squares_config(folder: Path, tars: Mapping[str, tuple[int, int]] | None = None, **changes: Any) -> Path:
    """Write tars (name -> count, first) and a config that parses no captions, which is the slow part.

    The truth is given as labels instead, which are not trusted.
    """
    for name, (count, first) in (tars if tars is not None else {"b.tar": (12, 0), "c.tar": (12, 12)}).items():
        write_squares(folder / "data" / name, count, first)
    squares = {
        "name": "squares",
        "format": "webdataset",
        "path": str(folder / "data" / "*.tar"),
        "labels": "truth",
    }
    policy = {"policy": {"trust_given": False}}
    return write_config(folder, **{"inputs": [squares], "parse": None, "clean": policy} | changes)


def drive(config: Path, *overrides: str, **flags: bool) -> CountingEngine:
    """Make a run whole in this process, report included; returns what had to be made.

    `flags` are the driver's: accept_changes, check_sources.
    """
    engine = CountingEngine()
    driver = Driver(load_config(str(config), overrides), **flags)
    driver.run(engine, Quiet())
    write_report(driver.run_folder, driver.vocabulary)
    return engine


def stop_before_recording(config: Path, stage: str) -> None:
    """Run until all outputs of a stage are in place, and stop before they are recorded."""

    driver = Driver(load_config(str(config)), accept_changes=True)
    write = driver.run_folder.write_record

    def stopping(record: StageRecord, *tables: Any) -> None:
        if record.stage == stage:
            raise KeyboardInterrupt
        write(record, *tables)

    driver.run_folder.write_record = stopping
    with pytest.raises(KeyboardInterrupt):
        driver.run(CountingEngine(), Quiet())


def plans(config: Path, *overrides: str) -> dict[str, StagePlan[Any]]:
    """What a run would make, by stage."""
    return {plan.stage.name: plan for plan in Driver(load_config(str(config), overrides)).plan()}


def damaged(run: Path | str) -> list[str]:
    """Everything that `verify` finds wrong."""
    return [problem for _, _, problems in verify(RunFolder(str(run))) for problem in problems]


def tagmill(*arguments: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return run_warm([*map(str, arguments)], environment(), cwd and str(cwd), timeout=120)


def environment() -> dict[str, str]:
    """The environment in which processes find the models of tests/support."""
    path = filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "COLUMNS": "200"}


def current_folder(run: Path, stage: str) -> Path:
    """The folder of a stage's current generation."""
    return run / stage / (RunFolder(str(run)).current(stage) or "")


def latest_note(folder: Path) -> Path:
    """The note of a folder that counts: a stage's pointer, or the record in a generation's `records`."""
    return Path(ledger.latest(str(folder)) or "")


def current_record(run: Path, stage: str) -> StageRecord:
    folder = RunFolder(str(run))
    record = folder.read_record(stage, folder.current(stage) or "")
    if record is None:
        raise AssertionError(f"{stage} has no record")
    return record


def rows_of(run: Path, stage: str) -> list[dict[str, Any]]:
    """All rows of a stage's current parts, in the order of the parts, with the part's name."""
    rows = []
    for name in current_record(run, stage).parts:
        for row in pq.read_table(current_folder(run, stage) / f"{name}.parquet").to_pylist():
            rows.append({"part": name, **row})
    return rows


def state(folder: Path, pattern: str = "**/*") -> dict[str, tuple[int, int, str]]:
    """Inode, time and digest of every file below a folder: whether any was touched shows here."""
    found = {}
    for path in sorted(folder.glob(pattern)):
        if path.is_file():
            info = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = (info.st_ino, info.st_mtime_ns, digest)
    return found


def stage_files(run: Path) -> dict[str, tuple[int, int, str]]:
    """The state of all files of the stages: parts, records, shards."""
    found = state(run)
    return {
        name: value
        for name, value in found.items()
        if "/" in name and not name.startswith(("report/", "tokens/"))
    }


def shard_bytes(run: Path) -> dict[str, str]:
    """The digest of every shard and of its index's rows, of the current dataset."""
    folder = current_folder(run, "shards")
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}
    for path in folder.glob("*.index.parquet"):
        found[path.name] = str(pq.read_table(path).to_pylist())
    return found


def samples(run: Path) -> list[dict[str, Any]]:
    """The JSON of every example in the current shards, in order."""
    import tarfile

    found = []
    for path in sorted(current_folder(run, "shards").glob("*.tar")):
        with tarfile.open(path) as archive:
            found += [
                json.loads(archive.extractfile(member).read())  # type: ignore[union-attr]
                for member in archive
                if member.name.endswith(".json")
            ]
    return found


def parts_there(run: Path, stage: str) -> dict[str, tuple[int, int, str]]:
    """The state of every committed part of a stage, of whatever generation."""
    return {
        name: value
        for name, value in state(run / stage, "*/*.parquet").items()
        if not Path(name).name.startswith(".")
    }


def key_values(column: Sequence[Any]) -> dict[str, Any]:
    """A map column's value as a dictionary."""
    return dict(column)


def table_types(schema: pa.Schema) -> list[tuple[str, str, bool]]:
    return [(field.name, str(field.type), field.nullable) for field in schema]


def coders_of(pipeline: beam.Pipeline) -> dict[str, list[str]]:
    """The URNs of the coder of every collection of a pipeline, its components' included."""
    components = pipeline.to_runner_api().components

    def urns(coder: str) -> list[str]:
        found = components.coders[coder]
        return [found.spec.urn] + [urn for part in found.component_coder_ids for urn in urns(part)]

    return {
        collection.unique_name: urns(collection.coder_id) for collection in components.pcollections.values()
    }
