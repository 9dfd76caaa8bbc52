"""Shards: decisions + original image bytes -> webdataset tars that are the same bytes every time.

Shards follow the sources: they are cut along the parts in ingest's order, so writing reads every source in
order and once, and new input only adds shards.
"""

import datetime
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Self

import apache_beam as beam
import pyarrow as pa
from pydantic import Field

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import DamageError
from tagmill.tag_system.licences import LicenceSource, licence_of, licence_spec
from tagmill.tag_system.sample_counts import SampleCounts
from tagmill.tag_system.sample_tags import short, tag_record
from tagmill.transforms import parquet, parts, stopwatch
from tagmill.transforms.formats.base import licences_of
from tagmill.transforms.images import check_unchanged, read_references
from tagmill.transforms.stage import WORK, PartTask, RunContext, Shared, Stage, removed_rows
from tagmill.transforms.worker import Worker

Record = dict[str, Any]


ELSEWHERE = ("date", "where")
"""Keys that change no shard: one stands in what is written around them, the other is a stage's of its own,
which takes examples away.
"""


class ShardsConfig(Config):
    """Sets the dataset.

    `size` is how many examples a shard holds at most; it is cut between parts, so not less than a part.
    `where` is an expression of DuckDB that is true of the examples that it takes, see `where.WhereFilter`.
    `date` is the day that the card and croissant.json give the dataset; without one they have none.
    """

    size: int = Field(10_000, ge=1)
    where: str | None = None
    date: datetime.date | None = None


@beam.coders.registry.register_row
@dataclass(frozen=True)
class ShardTask:
    """A shard to be written: its examples are those of `split` in its parts, in their order."""

    name: str
    split: str
    fingerprint: str
    parts: list[PartTask]


class Shards(Stage[ShardsConfig]):
    """Writes the dataset."""

    kind = "shards"
    name = "shards"
    version = 4
    schema = contract.INDEX_SCHEMA
    follows_rows = True
    counted_by = "clean"
    """The stage that notes of each part how many examples of each split it let out."""

    def __init__(
        self, config: ShardsConfig, shared: Shared, licences: Mapping[str, LicenceSource] | None = None
    ) -> None:
        super().__init__(config, shared)
        self.licences = licences or {}

    @classmethod
    def of_run(cls, run: RunContext) -> Self:
        """Make the stage, which is never off, with how the inputs say their licences."""
        return cls(run.config[cls.name], run.shared, licences_of(run.config["inputs"]))

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check that a part fits into a shard."""
        size, part_size = config[cls.name].size, config["part_size"]
        if size < part_size:
            raise ValueError(f"shards.size: {size} is less than part_size {part_size}")

    def inputs(self) -> tuple[str, ...]:
        """Decisions, and what a sample tells besides."""
        return ("ingest", "caption", "parse", "localize", "clean")

    def output_uri(self, folder: str, name: str) -> str:
        """Name a shard's index."""
        return index_uri(folder, name)

    def _spec(self) -> dict[str, Any]:
        config = {name: value for name, value in self.config.changed().items() if name not in ELSEWHERE}
        return {"layout": contract.LAYOUT, "config": config, **licence_spec(self.licences)}


class ShardWorker(Worker[Shards, ShardTask]):
    """Writes shards."""

    def is_done(self, task: ShardTask) -> bool:
        """Look for the shard's index, which is written after the tar."""
        return files.exists(index_uri(self.folder, task.name))

    def make(self, task: ShardTask) -> None:
        """Write a shard, and note how long it took: a shard's own files are equal in equal runs."""
        start = time.perf_counter()
        write_shard(self.stage, self.folder, task)
        seconds = {stopwatch.TOTAL: time.perf_counter() - start}
        stopwatch.note(files.join(self.folder, WORK), task.fingerprint, seconds)


def tar_uri(folder: str, name: str) -> str:
    """Name a shard's tar."""
    return files.join(folder, name + ".tar")


def index_uri(folder: str, name: str) -> str:
    """Name a shard's index; it is written after the tar and makes it count."""
    return files.join(folder, name + ".index.parquet")


def write_shard(stage: Shards, folder: str, task: ShardTask) -> None:
    """Write one tar and its index."""
    header = {
        "stage": stage.name,
        "version": stage.version,
        "fingerprint": task.fingerprint,
        "split": task.split,
    }
    with ShardWriter(folder, task.name, header) as writer:
        for sample, image in _samples(stage, task):
            writer.add(sample, image)
        writer.close()


class ShardWriter:
    """Writes one tar, sample by sample, and its index, with `header` and more in it; open it as a context.

    `counts` are of the samples so far; `split` is the header's.
    """

    def __init__(self, folder: str, name: str, header: Mapping[str, Any]) -> None:
        self._folder, self._name, self._header = folder, name, header
        self.split: str = header["split"]
        self.counts = SampleCounts()
        self._index: list[Record] = []

    def __enter__(self) -> "ShardWriter":
        with ExitStack() as stack:
            self._scratch = stack.enter_context(files.local_scratch(tar_uri(self._folder, self._name)))
            self._file = stack.enter_context(open(self._scratch, "wb"))
            self._stream = _HashingWriter(self._file)
            # A bare TarInfo has no time, owner or machine in it: equal samples are equal bytes.
            archive = tarfile.open(fileobj=self._stream, mode="w|", format=tarfile.PAX_FORMAT)
            self._archive = stack.enter_context(archive)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, sample: Record, image: bytes) -> None:
        """Write the two members of a sample."""
        self.counts.add(sample)
        stem = contract.escape(sample["key"])
        text = json.dumps(sample, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for extension, data in ((contract.EXTENSIONS[sample["format"]], image), ("json", text.encode())):
            info = tarfile.TarInfo(f"{stem}.{extension}")
            info.size = len(data)
            self._archive.addfile(info, io.BytesIO(data))
            offset = self._archive.offset - _padded(len(data))
            entry = {"key": sample["key"], "member": info.name, "offset": offset, "size": len(data)}
            self._index.append(entry)

    def close(self) -> contract.ManifestShard:
        """Commit the tar, then its index; gives what a manifest says of it."""
        self._archive.close()
        self._file.flush()
        tar = tar_uri(self._folder, self._name)
        stream = self._stream
        if not files.create_from(tar, self._scratch) and files.sha256(tar) != stream.sha256:
            raise DamageError(f"{tar} exists with other content; remove it and run again")
        header = {
            **self._header,
            "examples": self.counts.examples,
            **self.counts.told(),
            "bytes": stream.size,
            "sha256": stream.sha256,
        }
        table = pa.Table.from_pylist(self._index, contract.INDEX_SCHEMA)
        files.create_bytes(index_uri(self._folder, self._name), parquet.table_bytes(table, header))
        return contract.ManifestShard(
            name=self._name,
            split=self.split,
            examples=self.counts.examples,
            bytes=stream.size,
            sha256=stream.sha256,
        )


class _HashingWriter(io.RawIOBase):
    """Passes bytes on to a file, hashes and counts them."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._state = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._state.update(data)
        self.size += len(data)
        return self._stream.write(data)

    @property
    def sha256(self) -> str:
        return self._state.hexdigest()


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _samples(stage: Shards, task: ShardTask) -> Iterator[tuple[Record, bytes]]:
    for piece in task.parts:
        read = {name: parts.read_part(uri) for name, uri in piece.inputs.items()}
        inputs = parts.Inputs(piece.name, read, {}, piece.root, removed_rows(piece))
        rows = [row for row in inputs.rows if inputs.examples[row]["split"] == task.split]
        references = [inputs.examples[row]["image"] for row in rows]
        for row, image in zip(rows, read_references(references, piece.root), strict=True):
            check_unchanged(image, inputs.examples[row])
            yield make_sample(inputs, row, stage.licences), image


def make_sample(
    inputs: parts.Inputs, row: int, licences: Mapping[str, LicenceSource] | None = None
) -> Record:
    """Put together the JSON member of one example (`shard_contract.Sample`).

    `licences` say how each input tells the licence of an image.
    """
    example = inputs.examples[row]
    boxes: dict[str, list[list[float]]] = {}
    for region in inputs.of_row("localize", row):
        if region["region"] is not None:
            box = [region[name] for name in ("x1", "y1", "x2", "y2", "score")]
            boxes.setdefault(region["tag"], []).append(box)
    licence = licence_of(licences or {}, example["key"], example["meta"])
    plain = ("key", "width", "height", "orientation", "format", "sha256", "split")
    return {
        "layout": contract.LAYOUT,
        **{name: example[name] for name in plain},
        "captions": _captions(inputs, row),
        "tags": [tag_record(d, boxes.get(d["tag"], [])) for d in inputs.of_row("clean", row)],
        "labels": [_label(label) for label in example["labels"]],
        **({} if licence is None else {"license": licence}),
        "meta": example["meta"],
    }


def _label(label: Record) -> Record:
    box = label["box"]
    return {"name": label["name"]} | ({} if box is None else {"box": [short(number) for number in box]})


def _captions(inputs: parts.Inputs, row: int) -> list[Record]:
    mentions = {(c["source"], c["caption_index"]): c["mentions"] for c in inputs.of_row("parse", row)}
    given = [
        {"text": text, "source": "given", "mentions": _mentions(mentions.get(("given", index), []))}
        for index, text in enumerate(inputs.examples[row]["captions"])
        if text is not None
    ]
    generated = [
        {
            "text": c["caption"],
            "source": "generated",
            "mentions": _mentions(mentions.get(("generated", index), [])),
        }
        for index, c in enumerate(inputs.of_row("caption", row))
    ]
    return given + generated


def _mentions(mentions: Iterable[Record]) -> list[Record]:
    return [{name: m[name] for name in ("tag", "kind", "start", "end")} for m in mentions]
