"""The table of a model's tags, `tags.parquet`: counts, AP, precision, recall, F1 and a curve of each."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.models.training.metrics import RECALLS, TagMetrics
from tagmill.tag_system.core import files

TAGS = "tags.parquet"

CURVE = pa.list_(pa.float32(), len(RECALLS))

SCHEMA = pa.schema(
    [
        pa.field("tag", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("threshold", pa.float64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("positives", pa.int64(), nullable=False),
        pa.field("predicted", pa.int64(), nullable=False),
        pa.field("right", pa.int64(), nullable=False),
        pa.field("ap", pa.float64(), nullable=False),
        pa.field("precision", pa.float64(), nullable=False),
        pa.field("recall", pa.float64(), nullable=False),
        pa.field("f1", pa.float64(), nullable=False),
        pa.field("precision_at", CURVE, nullable=False),
        pa.field("threshold_at", CURVE, nullable=False),
    ]
)
"""`images` are those where the tag is known to be there or not; `right` of the `predicted` are `positives`.
`precision_at` and `threshold_at` are the curve at recalls 0, 0.01, ..., 1; NaN without positives."""

SHOWN = ("tag", "positives", "ap", "precision", "recall", "f1")


def write_tags(uri: str, tags: Sequence[TagMetrics]) -> None:
    """Write the table, whole or not at all. Raises ConfigError if that cannot be done."""
    rows = [asdict(tag) | {"precision": tag.precision, "recall": tag.recall, "f1": tag.f1} for tag in tags]
    with files.replacing(uri) as partial:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), partial, compression="zstd")


def read_present(uri: str) -> list[dict[str, Any]]:
    """Read the columns of `SHOWN` of the tags that have positives, those of the highest AP first."""
    rows: list[dict[str, Any]] = pq.read_table(
        pa.BufferReader(files.read_bytes(uri)), columns=list(SHOWN)
    ).to_pylist()
    return sorted((row for row in rows if row["positives"]), key=lambda row: (-row["ap"], row["tag"]))
