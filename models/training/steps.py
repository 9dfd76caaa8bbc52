"""Which samples a rank reads in each step: its share of the order, from wherever training stands."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmill.models.training.datasets import Dataset
from tagmill.models.training.examples import Address
from tagmill.models.training.order import Epoch, Order
from tagmill.models.training.shard_cache import ShardUse


@dataclass(frozen=True)
class Share:
    """What one of `world` ranks takes of each step: `batch_size` samples, every world-th from its rank on."""

    batch_size: int
    rank: int = 0
    world: int = 1

    @property
    def step(self) -> int:
        """Count the samples of a step of all ranks together."""
        return self.batch_size * self.world


class Steps:
    """The steps that are left of an epoch; fits torch's batch samplers.

    `position` counts the samples of the epoch that all ranks together have used. An epoch that does not
    divide into steps is cut short with `drop_last`, else its last step is padded with None.
    """

    def __init__(self, datasets: Sequence[Dataset], order: Order, share: Share, *, drop_last: bool) -> None:
        self.epoch, self.position = 0, 0
        self.share = share
        self.datasets, self._order, self._drop_last = tuple(datasets), order, drop_last
        self._made: tuple[int, Epoch] | None = None

    @property
    def fingerprint(self) -> str:
        """Hash what decides the order: its rules, and the shards."""
        shards = [[d.name, [[shard.name, shard.sha256] for shard in d.shards]] for d in self.datasets]
        return _digest({"order": self._order.spec(), "shards": shards})

    def repeat(self, factors: Sequence[NDArray[np.float32]]) -> None:
        """Show samples by their factors, float32 [samples] a dataset."""
        self._order, self._made = self._order.repeated(factors), None

    def count(self, epoch: int) -> int:
        """Count the steps of a whole epoch, the same for all ranks."""
        return self._divide(self._order.length(epoch))

    def left(self) -> int:
        """Count the steps that are left of the current epoch."""
        return self._divide(self._order.length(self.epoch) - self.position)

    def _divide(self, samples: int) -> int:
        size = self.share.step
        return max(0, samples // size if self._drop_last else -(-samples // size))

    def __iter__(self) -> Iterator[list[Address | None]]:
        """Give this rank's addresses, a list a step; the place from which they start is read once."""
        epoch, share = self._epoch(), self.share
        first, steps = self.position + share.rank, self.left()
        for step in range(steps):
            start = first + step * share.step
            slots = range(start, start + share.step, share.world)
            yield [self._address(epoch, slot) if slot < len(epoch) else None for slot in slots]

    def number(self, address: Address) -> int:
        """Give the number of a sample in its dataset."""
        dataset = self.datasets[address.dataset]
        return int(dataset.ends[address.shard]) - dataset.shards[address.shard].examples + address.row

    def samples(self, size: int) -> Iterator[list[Address]]:
        """Give this rank's share of all samples, each once, in lists of up to `size` neighbours."""
        share = self.share
        for source, dataset in enumerate(self.datasets):
            count = len(dataset.places)
            for start in range(share.rank * size, count, share.world * size):
                numbers = range(start, min(start + size, count))
                yield [self._sample(source, number, 0) for number in numbers]

    def uses(self) -> list[ShardUse]:
        """Say which shards the rest of the epoch reads, and at which places of the order."""
        epoch, found = self._epoch(), []
        for source, dataset in enumerate(self.datasets):
            places = self.position + np.flatnonzero(epoch.sources[self.position :] == source)
            shards = dataset.ends.searchsorted(epoch.numbers[places], side="right")
            first, last = (np.full(len(dataset.shards), -1) for _ in range(2))
            first[shards[::-1]] = places[::-1]  # of several values for one shard, the last one stays
            last[shards] = places
            for at in np.unique(shards).tolist():
                shard, uri = dataset.shards[at], dataset.shard_uri(at)
                found.append(ShardUse(uri, shard.sha256, shard.bytes, int(first[at]), int(last[at])))
        return found

    def _epoch(self) -> Epoch:
        if self._made is None or self._made[0] != self.epoch:
            self._made = None  # not two epochs in memory at once
            self._made = self.epoch, self._order.epoch(self.epoch)
        return self._made[1]

    def _address(self, epoch: Epoch, slot: int) -> Address:
        return self._sample(int(epoch.sources[slot]), int(epoch.numbers[slot]), int(epoch.turns[slot]))

    def _sample(self, source: int, number: int, turn: int) -> Address:
        dataset = self.datasets[source]
        shard = int(dataset.ends.searchsorted(number, side="right"))
        image, image_size, record, record_size = dataset.places[number].item()
        row = number - int(dataset.ends[shard]) + dataset.shards[shard].examples
        return Address(source, shard, image, image_size, record, record_size, turn, row)

    def common(self) -> str:
        """Hash what all ranks must agree about to take the same steps of one order."""
        share = [self.share.batch_size, self.share.world, self._drop_last]
        return _digest([self.fingerprint, share, self.epoch, self.position])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
