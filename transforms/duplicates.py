"""Duplicates: of images with the same bytes in one input, the first lives; so it is with keys.

First means first in ingest's order, which later input only extends: it never changes an earlier winner.
Only digests and row numbers cross the shuffle.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from tagmill.transforms import parts
from tagmill.transforms.stage import GlobalStage, PartTask, StageConfig, conform, libraries

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("winner_part", pa.string(), nullable=False),
        pa.field("winner_row", pa.int32(), nullable=False),
    ]
)
"""A row for each example that was dropped, with the example that won."""

SAME_IMAGE = "same_image"
SAME_KEY = "same_key"

ENTRY = np.dtype([("digest", "S16"), ("order", "<i8"), ("row", "<i4"), ("what", "u1")])


class DuplicatesConfig(StageConfig):
    """Duplicates are found within an input; there is nothing to choose yet."""


class Duplicates(GlobalStage[DuplicatesConfig]):
    """Drops the copies; what is written are the losers."""

    name = "duplicates"
    version = 1
    schema = SCHEMA

    def inputs(self) -> tuple[str, ...]:
        """Digests and keys are ingest's."""
        return ("ingest",)

    def transform(self, work: str, order: dict[str, int]) -> beam.PTransform:
        """Find the losers of every part."""
        return FindDuplicates(self, work, order)


class FindDuplicates(beam.PTransform):
    """PartTask -> name of the part, whose losers then lie in the work folder."""

    def __init__(self, stage: Duplicates, work: str, order: dict[str, int]) -> None:
        super().__init__()
        self._stage = stage
        self._work = work
        self._order = order

    def expand(self, tasks: beam.PCollection[PartTask]) -> beam.PCollection[str]:
        """Digests to their bucket, losers back to their part."""
        losers = (
            tasks
            | "Read digests" >> beam.ParDo(_DigestsFn(self._order))
            | "Group by digest" >> beam.GroupByKey()
            | "Find losers" >> beam.ParDo(_LosersFn(sorted(self._order, key=self._order.__getitem__)))
        )
        named = tasks | "Name" >> beam.Map(_named).with_output_types(tuple[str, PartTask])
        return (
            {"task": named, "losers": losers}
            | "Group by part" >> beam.CoGroupByKey()
            | "Write" >> beam.ParDo(_WriteFn(self._stage, self._work))
        )


def _named(task: PartTask) -> tuple[str, PartTask]:
    return task.name, task


def _digest(*values: str) -> bytes:
    return hashlib.blake2b("\0".join(values).encode(), digest_size=16).digest()


class _DigestsFn(beam.DoFn):
    """A part's digests of image and key, in blocks by bucket."""

    def __init__(self, order: dict[str, int]) -> None:
        self._order = order

    def process(self, element: PartTask) -> Iterable[tuple[int, bytes]]:
        part = parts.read_part(element.inputs["ingest"], ["row", "key", "sha256"])
        place, of_input = self._order[element.name], part.header.notes["input"]
        entries = []
        for record in part.records:
            entries.append((_digest(of_input, record["sha256"]), place, record["row"], 0))
            entries.append((_digest(record["key"]), place, record["row"], 1))
        table = np.array(entries, dtype=ENTRY)
        buckets = np.ascontiguousarray(table["digest"]).view(np.uint8).reshape(-1, 16)[:, 0]
        for bucket in np.unique(buckets):
            yield int(bucket), table[buckets == bucket].tobytes()


class _LosersFn(beam.DoFn):
    """All entries of a bucket -> the losers, by the name of their part."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[str, list[Any]]]:
        entries = np.frombuffer(b"".join(element[1]), dtype=ENTRY)
        entries = np.sort(entries, order=["what", "digest", "order", "row"])
        same = (entries["digest"][1:] == entries["digest"][:-1]) & (
            entries["what"][1:] == entries["what"][:-1]
        )
        starts = np.flatnonzero(np.concatenate([[True], ~same]))
        winner = np.repeat(starts, np.diff(np.append(starts, len(entries))))
        losers: dict[int, list[Any]] = {}
        for index in np.flatnonzero(winner != np.arange(len(entries))):
            entry, first = entries[index], entries[winner[index]]
            reason = SAME_KEY if entry["what"] else SAME_IMAGE
            loss = [int(entry["row"]), reason, self._names[int(first["order"])], int(first["row"])]
            losers.setdefault(int(entry["order"]), []).append(loss)
        for place, found in losers.items():
            yield self._names[place], found


class _WriteFn(beam.DoFn):
    """Writes a part's losers, or an empty table: every part of ingest has one."""

    def __init__(self, stage: Duplicates, work: str) -> None:
        self._stage = stage
        self._work = work

    def process(self, element: tuple[str, dict[str, Iterable[Any]]]) -> Iterable[str]:
        name, groups = element
        (task,) = groups["task"]
        part = parts.read_part(task.inputs["ingest"], ["row", "key"])
        inputs = parts.Inputs(name, {"ingest": part}, {}, task.root)
        losses = sorted(loss for block in groups["losers"] for loss in block)
        first = {row: (reason, winner, at) for row, reason, winner, at in reversed(losses)}
        records = [
            {"row": row, "key": inputs.key(row), "reason": reason, "winner_part": winner, "winner_row": at}
            for row, (reason, winner, at) in sorted(first.items())
        ]
        dropped = {row: reason for row, (reason, _, _) in first.items()}
        table = conform(pa.Table.from_pylist(records, SCHEMA), self._stage)
        output = parts.Output(table, len(inputs.rows), dropped=dropped)
        header = parts.make_header(
            self._stage.name,
            self._stage.version,
            name,
            task.fingerprint,
            self._stage.meaning,
            output,
            inputs.gone_after(output),
            libraries(),
        )
        parts.commit(self._work, header, output)
        yield name
