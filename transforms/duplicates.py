"""Duplicates: an example is dropped if one that lives, earlier in its input, has its image or else its key.

Examples are compared in ingest's order, so whoever loses names a winner that lives, and no image goes but
under keys that other images of the dataset have. To settle all keys first and then images, or the reverse,
would not do: an example could lose to one that is dropped itself, and the last copy of an image with it.
What becomes of an example depends on earlier ones alone: later input changes no winner, and no loser.

Only digests and row numbers cross the shuffle. Copies under keys of their own are settled in buckets; what
hangs together by keys that stand for several images meets in one place, at about 400 bytes an example.

Near-duplicates are looked for among the examples that are left, if asked; see `near_duplicates`.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tagmill.tag_system.core.config import Config
from tagmill.transforms import failures, parts
from tagmill.transforms.near_duplicates import FindNear, NearConfig, deal
from tagmill.transforms.phash import VERSION
from tagmill.transforms.stage import (
    GlobalStage,
    PartTask,
    living,
    made_by,
    removed_rows,
)
from tagmill.transforms.stopwatch import TimedFn
from tagmill.transforms.task_file import PartOrder

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

NEAR_SCHEMA = SCHEMA.append(pa.field("distance", pa.int32()))
"""With near-duplicates: how many bits of the hashes differ; null for the other reasons. There is a row for
near-duplicates that are kept too."""

SAME_IMAGE = "same_image"
SAME_KEY = "same_key"

ENTRY = np.dtype([("key", "S16"), ("image", "S16"), ("order", "<i8"), ("row", "<i4"), ("contested", "?")])
"""An example: digests of its key and image, the place of its part in ingest's order, its row in the part."""

Entries = NDArray[np.void]

Loss = tuple[int, int, str, int, int]
"""Order and row of an example that is dropped, the reason, order and row of the one that lives."""


class DuplicatesConfig(Config):
    """Copies are found within an input; near-duplicates in all of them, unless `near` is None."""

    near: NearConfig | None = None


class Duplicates(GlobalStage[DuplicatesConfig]):
    """Drops copies; a row for each dropped example."""

    name = "duplicates"
    version = 3
    schema = SCHEMA
    slices = {"ingest": "pixels"}

    def inputs(self) -> tuple[str, ...]:
        """Digests and keys are ingest's."""
        return ("ingest",)

    def _spec(self) -> dict[str, Any]:
        # Of equal bytes, whose digests are in the slice, the hashes are equal as long as this is.
        return super()._spec() | ({"phash": VERSION} if self.config.near else {})

    def doubts(self, dropped: Mapping[str, int], examples: int) -> Iterator[str]:
        """Doubt that most of a dataset are copies under equal keys."""
        count = dropped.get(SAME_KEY, 0)
        if 2 * count > examples:
            yield (
                f"{count} of {examples} examples were dropped, as others have their keys and other images; "
                "if these are jobs of img2dataset, which number from 0 each, make every job an input"
            )

    @property
    def keeps_near(self) -> bool:
        """Whether near-duplicates are told of and not dropped."""
        return self.config.near is not None and self.config.near.keep == "all"

    @property
    def columns(self) -> pa.Schema:
        """The schema of what is written: `schema`, and the distance if near-duplicates are looked for."""
        return NEAR_SCHEMA if self.config.near else SCHEMA

    def transform(self, work: str, order: PartOrder) -> beam.PTransform:
        """Find the losers of every part."""
        return FindDuplicates(self, work, order)


class FindDuplicates(beam.PTransform):
    """PartTask -> name of the part, whose losers then lie in the work folder."""

    def __init__(self, stage: Duplicates, work: str, order: PartOrder) -> None:
        super().__init__()
        self._stage = stage
        self._work = work
        self._order = order

    def expand(self, tasks: beam.PCollection[PartTask]) -> beam.PCollection[str]:
        """Digests to their bucket, of keys and then of images; losers back to their part."""
        names = self._order.names
        copies = (
            tasks
            | "Read digests" >> beam.ParDo(_EntriesFn(self._order, self._work))
            | "Group by key" >> beam.GroupByKey()
            | "Mark contested keys" >> beam.ParDo(_MarkFn(self._work))
            | "Group by image" >> beam.GroupByKey()
            | "Settle copies" >> beam.ParDo(_CopiesFn(names, self._work)).with_outputs("open", main="losers")
        )
        contested = (
            copies.open
            | "Bring together" >> beam.GroupByKey()
            | "Settle in order" >> beam.ParDo(_InOrderFn(names, self._work))
        )
        losers = (copies.losers, contested) | "All losers" >> beam.Flatten()
        named = tasks | "Name" >> beam.Map(_named).with_output_types(tuple[str, PartTask])
        settled = {"task": named, "losers": losers} | "Group by part" >> beam.CoGroupByKey()
        if near := self._stage.config.near:
            found = settled | "Find near" >> FindNear(near.distance, self._work, self._order)
            settled = {"task": named, "losers": losers, "near": found} | "Add near" >> beam.CoGroupByKey()
        return settled | "Write" >> beam.ParDo(_WriteFn(self._stage, self._work))


def _named(task: PartTask) -> tuple[str, PartTask]:
    return task.name, task


def _digest(*values: str) -> bytes:
    return hashlib.blake2b("\0".join(values).encode(), digest_size=16).digest()


def mark_contested(entries: Entries) -> Entries:
    """Mark the entries whose key stands for several images; `entries` has all of a key, or none."""
    _, keys = np.unique(entries["key"], return_inverse=True)
    _, images = np.unique(entries["image"], return_inverse=True)
    pairs = np.unique(np.stack([keys, images]), axis=1)
    marked = entries.copy()
    marked["contested"] = np.bincount(pairs[0])[keys] > 1
    return marked


def settle_copies(entries: Entries) -> tuple[list[Loss], Entries]:
    """Settle the images that have no contested key: the first of each lives.

    `entries` has all of an image, or none. Returns the losses, and the entries of the other images.
    """
    entries = entries[np.lexsort((entries["row"], entries["order"], entries["image"]))]
    starts = np.flatnonzero(np.concatenate([[True], entries["image"][1:] != entries["image"][:-1]]))
    sizes = np.diff(np.append(starts, len(entries)))
    first = np.repeat(starts, sizes)
    is_open = np.repeat(np.logical_or.reduceat(entries["contested"], starts), sizes)
    lost = np.flatnonzero(~is_open & (first != np.arange(len(entries))))
    return [_loss(entries, int(place), int(first[place]), SAME_IMAGE) for place in lost], entries[is_open]


def settle_in_order(entries: Entries) -> list[Loss]:
    """Go through entries in their order: one lives unless one that lives has its image, or else its key."""
    entries = entries[np.lexsort((entries["row"], entries["order"]))]
    of_image: dict[bytes, int] = {}
    of_key: dict[bytes, int] = {}
    losses = []
    pairs = zip(entries["image"].tolist(), entries["key"].tolist(), strict=True)
    for place, (image, key) in enumerate(pairs):
        if image in of_image:
            losses.append(_loss(entries, place, of_image[image], SAME_IMAGE))
        elif key in of_key:
            losses.append(_loss(entries, place, of_key[key], SAME_KEY))
        else:
            of_image[image] = of_key[key] = place
    return losses


def _loss(entries: Entries, place: int, winner: int, reason: str) -> Loss:
    lost, won = entries[place], entries[winner]
    return int(lost["order"]), int(lost["row"]), reason, int(won["order"]), int(won["row"])


def _blocks(entries: Entries, column: str) -> Iterator[tuple[int, bytes]]:
    """Deal entries to buckets, by the first byte of a digest."""
    return deal(entries, np.ascontiguousarray(entries[column]).view(np.uint8).reshape(-1, 16)[:, 0])


def _joined(blocks: Iterable[bytes]) -> Entries:
    return np.frombuffer(b"".join(blocks), dtype=ENTRY)


def _by_part(losses: Iterable[Loss], names: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """Gather losses by the name of the loser's part, as row, reason, the winner's part and row."""
    found = defaultdict(list)
    for order, row, reason, winner_order, winner_row in losses:
        found[order].append([row, reason, names[winner_order], winner_row])
    for order, rows in found.items():
        yield names[order], rows


class _EntriesFn(TimedFn):
    """A part's entries, in blocks by the bucket of the key."""

    step = "read"

    def __init__(self, order: PartOrder, work: str) -> None:
        super().__init__(work)
        self._order = order

    def process(self, element: PartTask) -> Iterable[tuple[int, bytes]]:
        with self.at_work():
            with failures.noted(self._work):
                part = parts.read_part(element.inputs["ingest"], ["row", "key", "sha256"])
                rows = living(part.table, element).to_pylist()
            place, of_input = self._order[element.name], part.header.notes["input"]
            entries = [
                (_digest(record["key"]), _digest(of_input, record["sha256"]), place, record["row"], False)
                for record in rows
            ]
            yield from _blocks(np.array(entries, dtype=ENTRY), "key")


class _MarkFn(TimedFn):
    """All entries of a bucket of keys, in blocks by the bucket of the image."""

    step = "settle"

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterable[tuple[int, bytes]]:
        with self.at_work():
            yield from _blocks(mark_contested(_joined(element[1])), "image")


class _CopiesFn(TimedFn):
    """All entries of a bucket of images -> losers by part; beside them what is to be settled in order."""

    step = "settle"

    def __init__(self, names: list[str], work: str) -> None:
        super().__init__(work)
        self._names = names

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        with self.at_work():
            losses, left = settle_copies(_joined(element[1]))
            yield from _by_part(losses, self._names)
            if len(left):
                yield beam.TaggedOutput("open", (0, left.tobytes()))


class _InOrderFn(TimedFn):
    """All entries that are left -> losers by part."""

    step = "settle"

    def __init__(self, names: list[str], work: str) -> None:
        super().__init__(work)
        self._names = names

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[str, list[Any]]]:
        with self.at_work():
            yield from _by_part(settle_in_order(_joined(element[1])), self._names)


class _WriteFn(TimedFn):
    """Writes a part's losers, or an empty table: every part of ingest has one."""

    step = "write"

    def __init__(self, stage: Duplicates, work: str) -> None:
        super().__init__(work)
        self._stage = stage

    def process(self, element: tuple[str, dict[str, Iterable[Any]]]) -> Iterable[str]:
        with self.at_work():
            name, groups = element
            (task,) = groups["task"]
            part = parts.read_part(task.inputs["ingest"], ["row", "key"])
            inputs = parts.Inputs(name, {"ingest": part}, {}, task.root, removed_rows(task))
            losses = sorted(loss for block in groups["losers"] for loss in block)
            near = sorted(loss for block in groups.get("near", ()) for loss in block)
            records = [
                dict(zip(self._stage.columns.names, [row, inputs.key(row), *rest], strict=False))
                for row, *rest in sorted(losses + near)
            ]
            table = pa.Table.from_pylist(records, self._stage.columns)
            lost = losses if self._stage.keeps_near else losses + near
            dropped = {row: reason for row, reason, *_ in lost}
            output = parts.Output(table, len(inputs.rows), dropped=dropped)
            parts.commit(self._work, made_by(self._stage, name, task.fingerprint), output, inputs.rows)
            yield name
