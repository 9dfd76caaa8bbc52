"""In which order an epoch shows the samples: a function of seed and epoch, and of nothing else.

A dataset is an endless stream of turns, each a permutation of all its samples; an epoch takes the next
`weight` times as many samples of every stream, so no sample is shown again before all others were. How many
ranks and workers share the epoch does not matter: they take slices of one order.

A turn is by default one permutation over all samples. That costs a read a sample, which a solid-state disk
gives at full rate, and which an object store gives as many at a time as a batch has; blocks of neighbours
would read faster from a spinning disk, but shards follow their sources, and neighbours in a batch are alike.
For storage that is better read in sequence there is `window`: shards are begun one after the other, and
each sample is shown at a random moment before as many more have begun. It mixes like the shuffle buffer of a
stream, but nothing of it is state, and at no moment are more than `window` + 1 shards in use, which can be
cached whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmill.models.training.repeats import Repeats

Numbers = NDArray[np.int64]

_TURN, _SHARDS, _DELAYS, _MIX, _EDGES, _ROUNDED = range(6)
"""What a permutation is for: part of its key, so that no two share one."""


@dataclass(frozen=True)
class DatasetSizes:
    """What order depends on in a dataset: the examples of each shard, and how often an epoch shows each.

    `repeats` are how often a turn shows each of them; None: once.
    """

    shards: tuple[int, ...]
    weight: float = 1.0
    repeats: Repeats | None = None

    @property
    def size(self) -> int:
        """Count the samples of a turn."""
        return sum(self.shards) if self.repeats is None else self.repeats.size

    def spec(self) -> list[Any]:
        """Say what decides the order, for JSON."""
        return [list(self.shards), self.weight, *([self.repeats.digest] if self.repeats else [])]


@dataclass(frozen=True)
class Epoch:
    """One epoch's order, three arrays [length]: the source of each sample, its number there, and the turn."""

    sources: NDArray[np.uint16]
    numbers: Numbers
    turns: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.numbers)


class Order:
    """The order of all epochs of a mix of sources.

    Without `shuffle` every epoch shows each sample once, in the order of the shards, whatever the weights.
    Memory: 14 bytes a sample of an epoch, about three times that while it is made.
    """

    def __init__(
        self, sources: Sequence[DatasetSizes], seed: int, *, shuffle: bool = True, window: int | None = None
    ) -> None:
        self._sources, self._seed = tuple(sources), seed
        self._shuffle, self._window = shuffle, window
        self._shares = [Fraction(str(source.weight)) * source.size for source in self._sources]

    def spec(self) -> dict[str, Any]:
        """Say what decides the order."""
        sources = [source.spec() for source in self._sources]
        window = None if self._window is None else {"sliding": self._window}
        return {"seed": self._seed, "shuffle": self._shuffle, "window": window, "sources": sources}

    def repeated(self, factors: Sequence[NDArray[np.float32]]) -> "Order":
        """Give the order in which a turn shows samples by their factors [examples], an array a source."""
        pairs = zip(self._sources, factors, strict=True)
        sources = [replace(source, repeats=Repeats(found)) for source, found in pairs]
        return Order(sources, self._seed, shuffle=self._shuffle, window=self._window)

    def length(self, epoch: int) -> int:
        """Count the samples of an epoch; with broken weights it may differ by one a source between epochs."""
        return sum(stop - start for start, stop in self._bounds(epoch))

    def epoch(self, epoch: int) -> Epoch:
        """Make the order of an epoch."""
        bounds = self._bounds(epoch)
        which = np.repeat(np.arange(len(bounds), dtype=np.uint16), [stop - start for start, stop in bounds])
        if self._shuffle and len(bounds) > 1:
            which = which[permutation(len(which), self._seed, _MIX, epoch)]
        numbers = np.empty(len(which), dtype=np.int64)
        turns = np.zeros(len(which), dtype=np.int32)
        for source, (start, stop) in enumerate(bounds):
            places = which == source
            numbers[places], turns[places] = self._stretch(source, start, stop)
        return Epoch(which, numbers, turns)

    def _bounds(self, epoch: int) -> list[tuple[int, int]]:
        """Say from where to where the epoch takes each source's stream."""
        if not self._shuffle:
            return [(0, source.size) for source in self._sources]
        return [(int(share * epoch), int(share * (epoch + 1))) for share in self._shares]

    def _stretch(self, source: int, start: int, stop: int) -> tuple[Numbers, Numbers]:
        """Give the samples of a stretch of a source's stream, and which of its showings each is."""
        one, size = self._sources[source], self._sources[source].size
        numbers, showings = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for turn in range(start // size, -(-stop // size)):
            taken = slice(max(0, start - turn * size), stop - turn * size)
            if one.repeats is None or not self._shuffle:
                numbers.append(self._turn(source, turn, np.array(one.shards, dtype=np.int64))[taken])
                showings.append(np.full(len(numbers[-1]), turn))
                continue
            times = one.repeats.times(permutation(sum(one.shards), self._seed, source, turn, _ROUNDED))
            ends = np.concatenate([[0], times.cumsum()])
            shown = self._turn(source, turn, np.diff(ends[np.cumsum((0, *one.shards))]))[taken]
            numbers.append(np.repeat(np.arange(len(times)), times)[shown])
            showings.append(turn * one.repeats.most + shown - ends[numbers[-1]])
        return np.concatenate(numbers), np.concatenate(showings)

    def _turn(self, source: int, turn: int, counts: Numbers) -> Numbers:
        """Order what a source shows in its so-many-th turn, `counts` of each shard."""
        key = (self._seed, source, turn)
        if not self._shuffle:
            return np.arange(counts.sum())
        if self._window is None:
            return permutation(int(counts.sum()), *key, _TURN)
        begun = np.empty(len(counts), dtype=np.uint64)
        begun[permutation(len(counts), *key, _SHARDS)] = np.arange(len(counts), dtype=np.uint64)
        return _sliding(np.repeat(begun, counts), self._window, key)


def _sliding(begun: NDArray[np.uint64], window: int, key: tuple[int, int, int]) -> Numbers:
    """Order samples by the moments at which they are shown: int64 [samples].

    Args:
        begun: How many shards begin before the one of each sample.
        window: How many more may begin until it is shown.
        key: What the chance is keyed by.
    """
    bits = np.uint64(32)  # of a moment's fraction
    last = np.uint64(int(begun.max(initial=0)) + 1) << bits
    moments = (begun << bits) + np.uint64(window) * _draws(len(begun), *key, _DELAYS)
    # Few shards are begun at first and few are left at last: all that is shown then is mixed once more.
    edges = np.uint64(window) * _draws(len(begun), *key, _EDGES)
    first = moments < min(np.uint64(window) << bits, last)
    moments[first] = edges[first] % last
    moments[moments >= last] = last + edges[moments >= last]
    return np.argsort(moments, kind="stable")


def _draws(count: int, *key: int) -> NDArray[np.uint64]:
    """Draw numbers below 2 ** 32: [count]; see `permutation`."""
    return np.random.Philox(np.random.SeedSequence(key)).random_raw(count) >> np.uint64(32)


def permutation(count: int, *key: int) -> Numbers:
    """Permute 0..count-1 by the key, which is of numbers >= 0: int64 [count].

    From raw bits, whose stream NumPy keeps from version to version, unlike that of its shuffles: a training
    that is resumed after an upgrade goes on in the same order.
    """
    keys = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    # The low bits hold the number itself: sorting in place takes half the time and memory of an argsort, and
    # leaves no ties for an algorithm to break.
    low = np.uint64(max(1, count.bit_length()))
    keys >>= low
    keys <<= low
    keys |= np.arange(count, dtype=np.uint64)
    keys.sort()
    keys &= (np.uint64(1) << low) - np.uint64(1)
    return keys.view(np.int64)
