"""Ingest: source files -> parts with a row for each example: image reference, captions, labels, meta."""

from dataclasses import dataclass
from typing import Any, Self

import apache_beam as beam
import pyarrow as pa
from pydantic import Field

from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.pixels import MAX_BYTES
from tagmill.transforms import images
from tagmill.transforms.exclusion import NOTHING, Exclusion, read_exclusion
from tagmill.transforms.formats.base import LICENCE_KEYS, InputConfig, format_of
from tagmill.transforms.given import Caps
from tagmill.transforms.stage import RunContext, Shared, Stage

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", images.IMAGE_REFERENCE, nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("orientation", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field(
            "labels",
            pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("box", pa.list_(pa.float32()))])),
            nullable=False,
        ),
        pa.field("meta", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

SLICES = {
    "pixels": ("key", "width", "height", "sha256"),
    "captions": ("captions",),
    "labels": ("labels",),
    "splits": ("split",),
}
"""Columns of each slice, besides the row."""


class IngestConfig(Config):
    """Limits of what is read, and the share of examples that go to `val` where a source has no split.

    With `limit`, only that many examples of each source are read, the first ones.
    """

    max_pixels: int = Field(100_000_000, gt=0)
    max_image_bytes: int = Field(MAX_BYTES, gt=0)
    max_member_bytes: int = Field(64 << 20, gt=0)
    max_record_bytes: int = Field(4 << 20, gt=0)
    max_captions: int = Field(1_000, gt=0)
    max_labels: int = Field(1_000, gt=0)
    max_meta_bytes: int = Field(1 << 20, gt=0)
    max_caption_characters: int = Field(2_000, gt=0, le=1_000_000)  # the most that spaCy reads
    val_fraction: float = Field(0.01, ge=0, lt=1)
    limit: int | None = Field(None, gt=0)

    def caps(self) -> Caps:
        """Give the limits of what one example says."""
        return Caps(self.max_captions, self.max_caption_characters, self.max_labels, self.max_meta_bytes)


@beam.coders.registry.register_row
@dataclass(frozen=True)
class SourceTask:
    """A source file to be ingested; `config` is the config of its input, as JSON.

    `limit` is how many of its examples are read, 0 for all. The fingerprint knows nothing of it: parts that
    it does not cut are as they ever are.
    """

    name: str
    fingerprint: str
    root: str
    path: str
    images: str
    size: int
    stamp: str
    config: str
    limit: int = 0


class Ingest(Stage[IngestConfig]):
    """Reads sources; the only stage whose unit of work is a source file, which gives one part or more."""

    kind = "sources"
    name = "ingest"
    version = 6
    schema = SCHEMA

    def __init__(self, config: IngestConfig, shared: Shared, exclusion: Exclusion = NOTHING) -> None:
        super().__init__(config, shared)
        self.exclusion = exclusion

    @classmethod
    def of_run(cls, run: RunContext) -> Self:
        """Make the stage, which is never off, with what the run's inputs exclude."""
        return cls(run.config[cls.name], run.shared, read_exclusion(run.config["inputs"]))

    def inputs(self) -> tuple[str, ...]:
        """Ingest reads no other stage."""
        return ()

    def _spec(self) -> dict[str, Any]:
        excluded = {"exclude": self.exclusion.digest} if self.exclusion else {}
        return {**super()._spec(), "part_size": self.shared.part_size, **excluded}

    @property
    def reading(self) -> dict[str, Any]:
        """What decides how examples are read: the spec, but for how many, and what is taken out
        afterwards.
        """
        config = {name: value for name, value in self.spec["config"].items() if name != "limit"}
        return {name: value for name, value in self.spec.items() if name != "exclude"} | {"config": config}

    def cut_slices(self, table: pa.Table) -> dict[str, pa.Table]:
        """Cut the table by what stages read: a changed caption then does not make a stage run again that
        looks at pixels alone.
        """
        return {name: table.select(["row", *columns]) for name, columns in SLICES.items()}


def input_spec(config: InputConfig) -> dict[str, Any]:
    """Give the non-default settings of an input that decide what is read from its sources."""
    apart = ("path", "images", "exclude", *LICENCE_KEYS)
    changed = {name: value for name, value in config.changed().items() if name not in apart}
    version = format_of(config).version
    return changed if version == 1 else {**changed, "format_version": version}


def part_name(source_name: str, chunk: int) -> str:
    """Name the part of a source's chunk."""
    return f"{source_name}-{chunk:05d}"


def source_of(part: str) -> str:
    """Name the source of a part."""
    return part.rpartition("-")[0]


def source_fingerprint(task: SourceTask) -> str:
    """Hash what decides all that is read of a source."""
    return value_digest([task.fingerprint, task.limit]) if task.limit else task.fingerprint


def part_fingerprint(task: SourceTask, name: str, *, is_cut: bool = False) -> str:
    """Hash what makes a part of a source: the task, and the file as it was when it was read.

    `is_cut` tells that the task's limit may have cut the part.
    """
    return value_digest([task.fingerprint, name, task.size, task.stamp, *([task.limit] if is_cut else [])])


def source_record_uri(folder: str, source_name: str) -> str:
    """Name the record of a source that was ingested to its end."""
    return files.join(folder, "sources", source_name + ".json")
