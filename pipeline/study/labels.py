"""Accounts for the labels that sources give: which tags they stand for, and which stand for none.

RUN/report/labels.parquet  a row a label, as it is written: how often it is given, and its tag
"""

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.label_names import LabelNames
from tagmill.transforms import parquet, parts

LABELS_SCHEMA = pa.schema(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("given", pa.int64(), nullable=False),
        pa.field("examples", pa.int64(), nullable=False),
        pa.field("tag", pa.string()),
        pa.field("listed", pa.bool_(), nullable=False),
        pa.field("nearest", pa.list_(pa.string()), nullable=False),
    ]
)
"""The commonest label first. `given` counts labels, of which an example may have several, `examples` the
examples. `listed` says that the run's `label_map` has the label; `nearest` names tags that are spelled much
alike, for the `MAX_NEAREST` commonest labels without a tag that it has not."""

MAX_NEAREST = 100
MAX_SHOWN = 5

_log = logging.getLogger(__name__)


def label_rows(run: RunFolder, ingest: StageRecord, names: LabelNames) -> list[dict[str, Any]]:
    """Count the labels of all examples that were read, by how they are written."""
    given: Counter[str] = Counter()
    examples: Counter[str] = Counter()
    folder = run.generation(ingest.stage, ingest.generation)
    with ThreadPoolExecutor(files.THREADS) as pool:
        for labels in pool.map(lambda name: list(_labels(folder, name)), ingest.parts):
            for found in labels:
                given.update(found)
                examples.update(set(found))
    rows = []
    asked = 0
    for label, count in sorted(given.items(), key=lambda pair: (-pair[1], pair[0])):
        tag, listed = names.resolve(label), names.is_listed(label)
        asked += tag is None and not listed
        near = names.nearest(label) if tag is None and not listed and asked <= MAX_NEAREST else []
        about = {"label": label, "given": count, "examples": examples[label], "listed": listed}
        rows.append({**about, "tag": tag and tag.name, "nearest": near})
    return rows


def _labels(folder: str, name: str) -> Iterator[list[str]]:
    for found in parquet.read_table(parts.part_uri(folder, name), ["labels"])["labels"].to_pylist():
        yield [label["name"] for label in found]


def warn_of_unmapped(rows: list[dict[str, Any]], uri: str) -> None:
    """Warn of labels without a tag, except those that the run's `label_map` lists."""
    total = sum(row["given"] for row in rows)
    lost = [row for row in rows if row["tag"] is None and not row["listed"]]
    if not lost:
        return
    count = sum(row["given"] for row in lost)
    shown = ", ".join(f"{row['label']} {row['given']}" for row in lost[:MAX_SHOWN])
    more = ", ..." if len(lost) > MAX_SHOWN else ""
    _log.warning(
        "%d of %d given labels (%.0f %%) are not names of tags: %s%s; %s has all, and a file named by "
        "`label_map` says what they stand for",
        *(count, total, 100 * count / total, shown, more, uri),
    )
