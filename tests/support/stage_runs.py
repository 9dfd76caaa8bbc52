"""Runs single stages over real files, without the driver: what the tests of `transforms` share."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa

from sources import VOCABULARY
from tagmill.tag_system.core import files
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.candidates import Asked, Candidates, CandidatesConfig
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.ingest import SCHEMA as INGEST_SCHEMA
from tagmill.transforms.ingest import Ingest, IngestConfig, SourceTask
from tagmill.transforms.source_worker import ingest_source
from tagmill.transforms.stage import (
    ROWS_SCHEMA,
    GlobalStage,
    PartStage,
    PartTask,
    Shared,
    Stage,
    make_part,
    removed_rows,
)
from tagmill.transforms.task_file import PartOrder

SQUARES = Vocabulary.from_text(VOCABULARY, "squares")

EXAMPLE: dict[str, Any] = {
    "key": "squares/000000",
    "image": {"kind": "file", "uri": "nowhere.png", "offset": 0, "size": 1},
    "width": 96,
    "height": 80,
    "orientation": 1,
    "format": "PNG",
    "sha256": hashlib.sha256(b"").hexdigest(),
    "phash": 0,
    "captions": [],
    "labels": [],
    "meta": "{}",
    "split": "train",
}


def shared(**changes: Any) -> Shared:
    values = {"part_size": 5, "threads": 2, "max_pixels": 10**8, "decode_threads": 2}
    return Shared(**(values | changes))


def example(row: int, **changes: Any) -> dict[str, Any]:
    """A row of ingest; its image is nowhere."""
    return EXAMPLE | {"row": row, "key": f"squares/{row:06d}"} | changes


def part(
    stage: str,
    schema: pa.Schema,
    records: Iterable[Mapping[str, Any]],
    *,
    examples: int = 0,
    dropped: Sequence[int] = (),
) -> parts.Part:
    """A part in memory, from records written by hand; `dropped` are of its `examples` rows."""
    output = parts.Output(
        pa.Table.from_pylist(list(records), schema), examples, dropped=dict.fromkeys(dropped, "filtered")
    )
    header = parts.make_header(parts.MadeBy(stage, 1, "p", "f", {}, {}), output, range(examples))
    return parts.Part(header, output.table)


def ingest_part(*records: dict[str, Any], dropped: Sequence[int] = ()) -> parts.Part:
    rows = [*(record["row"] for record in records), *dropped]
    return part("ingest", INGEST_SCHEMA, records, examples=max(rows, default=-1) + 1, dropped=dropped)


def source_task(stage: Ingest, path: Path, **changes: Any) -> SourceTask:
    values = {"name": "squares", "format": "webdataset", "path": str(path)} | changes
    config = InputConfig(**values)
    size, stamp = files.size_and_stamp(str(path))
    name = hashlib.sha256(f"{config.name}/{path.name}".encode()).hexdigest()[:12]
    images = config.images or str(path.parent)
    return SourceTask(
        name, "made-by", str(path.parent), path.name, images, size, stamp, config.model_dump_json()
    )


def write_removed(uri: str, removed: Mapping[str, int]) -> str:
    """Write the table that says which rows of each part earlier stages took out; returns its uri."""
    rows = [
        {"name": name, "made_for": b"", "came": b"", "removed": bitmaps.dump(bits), "tags": b""}
        for name, bits in removed.items()
    ]
    files.replace_bytes(uri, parquet.table_bytes(pa.Table.from_pylist(rows, ROWS_SCHEMA)))
    return uri


class Bench:
    """A folder in which stages run one after the other, each on what those before it wrote."""

    def __init__(self, folder: Path, vocabulary: Vocabulary = SQUARES, **changes: Any) -> None:
        self.folder = folder
        self.vocabulary = vocabulary
        self.shared = shared(**changes)
        self.names: list[str] = []
        self.stages: list[Stage[Any]] = []
        self.roots: dict[str, str] = {}

    def uri(self, stage: str) -> str:
        return str(self.folder / stage)

    def ingest(self, path: Path, config: IngestConfig | None = None, **changes: Any) -> list[parts.Part]:
        """Ingest one source file; its parts follow those that are there."""
        stage = Ingest(config or IngestConfig(), self.shared)
        task = source_task(stage, path, **changes)
        ingest_source(stage, self.uri("ingest"), task)
        if not self.stages:
            self.stages.append(stage)
        names = [n for n in self.part_names("ingest") if n.startswith(task.name)]
        self.names += [name for name in names if name not in self.names]
        self.roots |= dict.fromkeys(names, task.images)
        return [self.part("ingest", name) for name in names]

    def part_names(self, stage: str) -> list[str]:
        found = files.list_names(self.uri(stage), parts.SUFFIX)
        return [name.removesuffix(parts.SUFFIX) for name in found]

    def part(self, stage: str, name: str | None = None) -> parts.Part:
        return parts.read_part(parts.part_uri(self.uri(stage), name or self.names[0]))

    def dead(self, stage: str, name: str | None = None) -> list[dict[str, Any]]:
        uri = parts.dead_uri(self.uri(stage), name or self.names[0])
        return parquet.read_table(uri).to_pylist() if files.exists(uri) else []

    def tasks(self, stage: Stage[Any]) -> list[PartTask]:
        before = {other.name: other for other in self.stages}
        inputs = [name for name in stage.inputs() if name in before]
        removed = self._removed()
        return [
            PartTask(
                name,
                f"makes-{stage.name}",
                {i: self._input(i, name) for i in inputs},
                self.roots[name],
                removed,
            )
            for name in self.names
        ]

    def _removed(self) -> str:
        """Write down which rows the stages so far took out, as the driver does."""
        removed = {}
        for name in self.names:
            headers = [self.part(s.name, name).header for s in self.stages if s.name != "cluster"]
            removed[name] = bitmaps.of(row for header in headers for row in bitmaps.numbers(header.lost))
        uri = files.join(str(self.folder), f"rows-{len(self.stages)}-{len(self.names)}.parquet")
        return write_removed(uri, removed)

    def _input(self, stage: str, name: str) -> str:
        if stage == "cluster":
            return files.join(self.uri(stage), "clusters.parquet")
        return parts.part_uri(self.uri(stage), name)

    def run(self, stage: Stage[Any]) -> list[parts.Part]:
        """Run a part stage on all parts, or a global stage as a Beam job."""
        if isinstance(stage, PartStage):
            stage.setup()
            for task in self.tasks(stage):
                make_part(stage, self.uri(stage.name), task)
        elif isinstance(stage, GlobalStage):
            self.beam(stage)
        self.stages.append(stage)
        return [self.part(stage.name, name) for name in self.names] if stage.name != "cluster" else []

    def beam(self, stage: GlobalStage[Any], runner: str = "FnApiRunner", work: str | None = None) -> str:
        """Run a global stage's job; what it makes lies in the folder that is returned."""
        folder = work or self.uri(stage.name)
        order = PartOrder(self.names)
        with beam.Pipeline(runner=runner) as pipeline:
            pipeline | beam.Create(self.tasks(stage)) | stage.transform(folder, order)
        return folder

    def inputs(self, stage: Stage[Any], name: str | None = None) -> parts.Inputs:
        task = next(t for t in self.tasks(stage) if t.name == (name or self.names[0]))
        read = {i: parts.read_part(uri) for i, uri in task.inputs.items() if i != "cluster"}
        return parts.Inputs(task.name, read, {}, task.root, removed_rows(task))

    def candidates(self, asked: Asked | None = None, **changes: Any) -> list[parts.Part]:
        """Run the stage candidates; unless said otherwise, a localizer may be asked any text."""
        stage = Candidates(
            CandidatesConfig(**changes), self.shared, self.vocabulary, asked or Asked(localizer=True)
        )
        return self.run(stage)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()
