"""Flat tables: `examples.parquet`, a row an image, and `decisions.parquet`, a row a tag of it, by `key`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.pipeline.study.exports.base import ALL_VERDICTS, Export, ExportContext
from tagmill.pipeline.study.exports.chosen import ChosenExample, ChosenTag, row_of
from tagmill.tag_system.sample_tags import EMBEDDER, LOCALIZER, LOOKS, SOURCES

EXAMPLES_AT_ONCE, DECISIONS_AT_ONCE = 1_000, 20_000
"""Rows of a row group: those of examples may be large."""

_TEXTS = pa.list_(pa.string())

EXAMPLES = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int32()),
        ("format", pa.string()),
        ("sha256", pa.string()),
        ("captions", _TEXTS),
        ("generated", pa.list_(pa.bool_())),
        ("labels", _TEXTS),
        ("tags", _TEXTS),
        ("absent", _TEXTS),
        ("implied", _TEXTS),
        ("license", pa.string()),
        ("meta", pa.string()),
        ("shard", pa.string()),
        ("image_offset", pa.int64()),
        ("image_size", pa.int64()),
    ]
)
"""`tags` are the kept ones; `generated` says of each caption whether a model wrote it; the image's bytes lie
in the tar of `shard`."""

_NUMBERS = ("tagger", "box_score", "x1", "y1", "x2", "y2", *LOOKS, "presence")

DECISIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("key", "split", "tag", "kind", "verdict", "rule", "basis")),
        *((name, pa.int32()) for name in SOURCES),
        ("asked", pa.bool_()),
        ("boxes", pa.int32()),
        *((name, pa.float32()) for name in _NUMBERS),
        *((name, pa.string()) for name in ("other_tag", "review", "implied_by")),
    ]
)
"""`asked` says whether a region was looked for, `boxes` how many were found; `x1` to `box_score` are the best
one's, in pixels of the upright image."""


class ParquetExport(Export):
    """The format `parquet`."""

    takes = frozenset({"verdicts"})
    defaults = ALL_VERDICTS
    reads_images = False
    cannot_say = ("images", "mentions", "label boxes", "further boxes")

    def __init__(self, folder: Path, context: ExportContext) -> None:
        super().__init__(folder, context)
        self.tables = {
            "examples": TableFile(folder / "examples.parquet", EXAMPLES, EXAMPLES_AT_ONCE),
            "decisions": TableFile(folder / "decisions.parquet", DECISIONS, DECISIONS_AT_ONCE),
        }

    def write(self, one: ChosenExample) -> None:
        """Add the rows of an example."""
        self.tables["examples"].add(_example(one))
        for row in _decisions(one):
            self.tables["decisions"].add(row)

    def close(self) -> None:
        """Write the rows that are left."""
        for table in self.tables.values():
            table.finish()

    def stop(self) -> None:
        """Close the files."""
        for table in self.tables.values():
            table.stop()


class TableFile:
    """A Parquet file that is written row by row, `at_once` a row group."""

    def __init__(self, path: Path, schema: pa.Schema, at_once: int) -> None:
        self.schema, self._at_once = schema, at_once
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._waiting.append(row)
        if len(self._waiting) == self._at_once:
            self.flush()

    def flush(self) -> None:
        """End the row group."""
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, self.schema))
            self._waiting.clear()

    def finish(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        self._writer.close()

    def stop(self) -> None:
        """Close the file as it is."""
        self._writer.close()


def _example(one: ChosenExample) -> dict[str, Any]:
    sample = one.sample
    return row_of(one) | {
        "generated": [caption.source == "generated" for caption in sample.captions],
        "tags": [tag.name for tag in one.tags if tag.record.verdict == "kept"],
        "absent": sample.absent,
        "implied": sample.implied,
        "shard": one.place.shard,
        "image_offset": one.place.offset,
        "image_size": one.place.size,
    }


def _decisions(one: ChosenExample) -> Iterator[dict[str, Any]]:
    for tag in one.tags:
        yield {"key": one.sample.key, "split": one.sample.split} | _decision(tag)


def _decision(tag: ChosenTag) -> dict[str, Any]:
    record = tag.record
    row: dict[str, Any] = record.model_dump(exclude={"sources", "evidence"})
    row |= {name: getattr(record.sources, name) for name in SOURCES}
    row |= {"tagger": tag.score, "boxes": len(tag.boxes), "asked": False}
    for entry in record.evidence:
        if entry.model == LOCALIZER:
            row["asked"] = True
        if entry.model == EMBEDDER:
            row |= {name: getattr(entry, name) for name in (*LOOKS, "other_tag")}
        if entry.presence is not None:
            row["presence"] = entry.presence
    if tag.boxes:
        row |= zip(("x1", "y1", "x2", "y2", "box_score"), tag.boxes[0], strict=True)
    return row
