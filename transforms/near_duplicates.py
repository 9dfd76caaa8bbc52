"""Near-duplicates: examples whose perceptual hashes differ in few bits, in all inputs and splits.

An example goes to the first one that stays and lies near it. So everything in a cluster lies near the
cluster's first, and chains of small steps from one picture to quite another one do not hang together. What
becomes of an example depends on earlier ones alone: later input changes no winner, and no loser.

Equal hashes are one hash first, so that thousands of blank images make as many pairs and no more. Hashes that
differ in at most N bits are equal in one of N + 1 sets of bits, so only such are compared that share all bits
of a set. Hashes and numbers of examples alone cross the shuffle, in blocks of bytes: 16 an example for each
set of bits, and 17 a pair, which meet in one place. A million examples take the local runner 0.5 GB of memory
at a distance of 4.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Literal

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tagmill.tag_system.core.config import Config
from tagmill.transforms import bitmaps, failures, parts
from tagmill.transforms.stage import PartTask, living
from tagmill.transforms.stopwatch import TimedFn
from tagmill.transforms.task_file import PartOrder

NEAR_DUPLICATE = "near_duplicate"

HASHED = np.dtype([("hash", "<u8"), ("place", "<i8")])
"""A hash, and the place of the first example that has it: its part's in ingest's order, and its row."""

PAIR = np.dtype([("place", "<i8"), ("first", "<i8"), ("distance", "u1")])
"""Places of a later example and of an earlier one, and how many bits differ; none only in equal hashes."""

Hashed = NDArray[np.void]
Pairs = NDArray[np.void]

NearLoss = tuple[int, int, int]
"""Places of an example that is lost and of the one that it goes to, and the distance between them."""

ALL_BITS = (1 << 64) - 1

LARGEST = 512
"""Hashes that share bits and are compared each with each; of more, those that share more of their bits."""

MOST = 16
"""Pairs that are kept of an example for each set of bits, the earliest: without a bound, some thousand
pictures of one template would be millions of pairs. An example with more may stay that should go."""

PENDING = 1 << 20
"""Pairs that are gathered before those over `MOST` are let go."""

BUCKETS = 32


class NearConfig(Config):
    """How many bits of two hashes may differ, and whether the first alone is kept, or all are, and told of.

    Of pictures saved again in another size or quality, all are found at 4, of those that were cut at the
    edges or written on some; at 8, one of 22 million pairs of different photographs is near by chance.
    """

    keep: Literal["first", "all"] = "first"
    distance: int = Field(4, ge=0, le=8)


class FindNear(beam.PTransform):
    """(part, its task and its exact duplicates) -> (part, its near-duplicates).

    A near-duplicate is a list of its row, the reason, part and row of the first, and the distance to it.
    """

    def __init__(self, distance: int, work: str, order: PartOrder) -> None:
        super().__init__()
        self._distance = distance
        self._work = work
        self._order = order

    def expand(self, settled: beam.PCollection[tuple[str, Any]]) -> beam.PCollection[tuple[str, list[Any]]]:
        """Hashes to their bucket, distinct ones to a bucket for each set of bits, pairs to one place."""
        names = self._order.names
        distinct = (
            settled
            | "Read hashes" >> beam.ParDo(_HashesFn(self._order, self._work))
            | "Group by hash" >> beam.GroupByKey()
            | "Collapse"
            >> beam.ParDo(_CollapseFn(self._distance, self._work)).with_outputs("copies", main="distinct")
        )
        pairs = (
            distinct.distinct
            | "Group by bits" >> beam.GroupByKey()
            | "Compare" >> beam.ParDo(_PairsFn(self._distance, self._work))
        )
        return (
            (distinct.copies, pairs)
            | "All pairs" >> beam.Flatten()
            | "Bring pairs together" >> beam.GroupByKey()
            | "Settle pairs" >> beam.ParDo(_SettleFn(names, self._work))
        )


def deal(entries: NDArray[np.void], buckets: NDArray[Any]) -> Iterator[tuple[int, bytes]]:
    """Deal entries to their buckets, in blocks of bytes."""
    for bucket in np.unique(buckets):
        yield int(bucket), entries[buckets == bucket].tobytes()


def collapse(hashed: Hashed) -> tuple[Hashed, Pairs]:
    """Give each hash once, at its first place, and pair all other places with that.

    `hashed` has all places of a hash, or none.
    """
    hashed = hashed[np.lexsort((hashed["place"], hashed["hash"]))]
    first, rank = _runs(hashed["hash"])
    again = rank > 0
    return hashed[~again], _pairs(hashed[again], hashed[first[again]])


def bit_sets(bits: int, distance: int) -> list[int]:
    """Deal bits to `distance` + 1 sets: in one of them, hashes so near to each other are equal.

    Neighbours go to different sets, for neighbouring bits of a perceptual hash tend to agree.
    """
    numbers = bitmaps.numbers(bits)
    return [bitmaps.of(numbers[start :: distance + 1]) for start in range(distance + 1)]


def near_pairs(hashed: Hashed, distance: int, number: int) -> Pairs:
    """Pair near hashes that are equal in the set of bits `number`, and in none before it.

    `hashed` has distinct hashes, and all that share those bits, or none. An example has at most `MOST`
    pairs, those with the earliest places.
    """
    kept: list[Pairs] = [np.empty(0, PAIR)]
    pending = 0
    for later, earlier in _compared(hashed, ALL_BITS, distance, number):
        kept.append(_pairs(later, earlier))
        pending += len(later)
        if pending > PENDING:
            kept, pending = [_earliest(kept)], 0
    return _earliest(kept)


def settle(pairs: Pairs) -> list[NearLoss]:
    """Settle examples in their order: one goes to the first that stays and lies near it."""
    lost: dict[int, tuple[int, int]] = {}
    for place, first, distance in pairs[np.lexsort((pairs["first"], pairs["place"]))].tolist():
        if place in lost:
            continue
        if first not in lost:
            lost[place] = first, distance
        elif distance == 0:  # one hash has one fate
            lost[place] = lost[first]
    return [(place, first, distance) for place, (first, distance) in lost.items()]


def _compared(hashed: Hashed, bits: int, distance: int, number: int) -> Iterator[tuple[Hashed, Hashed]]:
    """Give the later and the earlier ones of what is near and equal in a set of these bits, by blocks."""
    sets = bit_sets(bits, distance)
    hashed = hashed[np.lexsort((hashed["place"], hashed["hash"] & np.uint64(sets[number])))]
    first, rank = _runs(hashed["hash"] & np.uint64(sets[number]))
    sizes = np.bincount(first, minlength=len(hashed))
    found: list[Iterator[tuple[Hashed, Hashed]]] = []
    for start in np.flatnonzero(sizes > LARGEST).tolist():
        group = hashed[start : start + int(sizes[start])]
        differing = int(np.bitwise_or.reduce(group["hash"] ^ group["hash"][0]))
        # With fewer bits a set, groups would shrink less than their number grows.
        if 1 << differing.bit_count() // (distance + 1) > distance + 1:
            found += [_compared(group, differing, distance, other) for other in range(distance + 1)]
            rank[start : start + len(group)] = 0
    found.append(_each_with_each(hashed, first, rank, np.flatnonzero(rank > 0), distance))
    for later, earlier in chain.from_iterable(found):
        differ = later["hash"] ^ earlier["hash"]
        is_new = np.ones(len(differ), np.bool_)
        for mask in sets[:number]:
            is_new &= differ & np.uint64(mask) != 0
        yield later[is_new], earlier[is_new]


def _each_with_each(
    hashed: Hashed, first: NDArray[np.int64], rank: NDArray[np.int64], open_: NDArray[np.int64], distance: int
) -> Iterator[tuple[Hashed, Hashed]]:
    """Compare those at the indices `open_` with all before them in their group, the group's first first."""
    step = 0
    while len(open_):
        earlier = first[open_] + step
        near = np.bitwise_count(hashed["hash"][open_] ^ hashed["hash"][earlier]) <= distance
        if near.any():
            yield hashed[open_[near]], hashed[earlier[near]]
        step += 1
        open_ = open_[rank[open_] > step]


def _runs(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give, for each of sorted values, the index of the first that equals it, and how far that is."""
    numbers = np.arange(len(values))
    is_first = np.append(True, values[1:] != values[:-1])[: len(values)]
    first = np.maximum.accumulate(np.where(is_first, numbers, 0))
    return first, numbers - first


def _pairs(later: Hashed, earlier: Hashed) -> Pairs:
    pairs = np.empty(len(later), PAIR)
    pairs["place"], pairs["first"] = later["place"], earlier["place"]
    pairs["distance"] = np.bitwise_count(later["hash"] ^ earlier["hash"])
    return pairs


def _earliest(found: list[Pairs]) -> Pairs:
    """Keep of each place the `MOST` pairs with the earliest places: of all, whatever was let go before."""
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs["first"], pairs["place"]))]
    return pairs[_runs(pairs["place"])[1] < MOST]


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Give the bucket of each hash."""
    return (hashes * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype(np.int64) % BUCKETS


def _joined(blocks: Iterable[bytes], kind: np.dtype[np.void]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(blocks), dtype=kind)


class _HashesFn(TimedFn):
    """The hashes of a part's examples that are not exact duplicates, in blocks by the bucket of the hash."""

    step = "near"

    def __init__(self, order: PartOrder, work: str) -> None:
        super().__init__(work)
        self._order = order

    def process(self, element: tuple[str, dict[str, Iterable[Any]]]) -> Iterable[tuple[int, bytes]]:
        with self.at_work():
            name, groups = element
            (task,) = groups["task"]
            lost = [loss[0] for block in groups["losers"] for loss in block]
            with failures.noted(self._work):
                hashed = _hashed(task, self._order[name])
            hashed = hashed[~np.isin(hashed["place"] & 0xFFFFFFFF, lost)]
            yield from deal(hashed, _mixed(hashed["hash"]))


def _hashed(task: PartTask, order: int) -> Hashed:
    table = living(parts.read_part(task.inputs["ingest"], ["row", "phash"]).table, task)
    hashed = np.empty(table.num_rows, HASHED)
    hashed["hash"] = table["phash"].to_numpy()
    hashed["place"] = table["row"].to_numpy().astype(np.int64) | order << 32
    return hashed


class _CollapseFn(TimedFn):
    """All hashes of a bucket -> distinct ones by bucket of each set of bits; beside them those that recur."""

    step = "near"

    def __init__(self, distance: int, work: str) -> None:
        super().__init__(work)
        self._sets = bit_sets(ALL_BITS, distance)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        with self.at_work():
            distinct, copies = collapse(_joined(element[1], HASHED))
            if len(copies):
                yield beam.TaggedOutput("copies", (0, copies.tobytes()))
            for number, bits in enumerate(self._sets):
                yield from deal(distinct, number * BUCKETS + _mixed(distinct["hash"] & np.uint64(bits)))


class _PairsFn(TimedFn):
    """All hashes of a bucket of a set of bits -> their pairs."""

    step = "near"

    def __init__(self, distance: int, work: str) -> None:
        super().__init__(work)
        self._distance = distance

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        with self.at_work():
            pairs = near_pairs(_joined(element[1], HASHED), self._distance, element[0] // BUCKETS)
            if len(pairs):
                yield 0, pairs.tobytes()


class _SettleFn(TimedFn):
    """All pairs -> near-duplicates by part."""

    step = "near"

    def __init__(self, names: list[str], work: str) -> None:
        super().__init__(work)
        self._names = names

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[str, list[Any]]]:
        with self.at_work():
            found = defaultdict(list)
            for place, first, distance in settle(_joined(element[1], PAIR)):
                winner, row = self._names[first >> 32], first & 0xFFFFFFFF
                found[place >> 32].append([place & 0xFFFFFFFF, NEAR_DUPLICATE, winner, row, distance])
            for order, losses in found.items():
                yield self._names[order], losses
