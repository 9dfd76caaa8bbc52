"""Loads batches of a mix of datasets, in an order that can be resumed exactly at any batch."""

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tagmill.models.training.batches import Batch, Collate
from tagmill.models.training.datasets import Dataset
from tagmill.models.training.examples import Address, DatasetInfo, Examples, Failed
from tagmill.models.training.shard_cache import ShardCache
from tagmill.models.training.steps import Steps
from tagmill.models.training.targets import Target
from tagmill.tag_system.core.errors import ConfigError

READ = "read"
"""What becomes of a sample that is not skipped."""

COUNTS = ("skipped", "unmapped", "outcomes")
"""The counts of a loader's state, which are those of its rank."""


class Loader:
    """Gives the batches of one epoch after the other: each `for batch in loader` is the rest of an epoch.

    An interrupted iteration continues after the last batch that it gave; what workers had read ahead is lost.
    Raises ConfigError if an epoch does not fill one step and, before the first step of every epoch, if ranks
    disagree about order, shares or position (where torch.distributed is initialised).

    Attributes:
        skipped: This rank's skipped samples by reason, since the training began.
        unmapped: This rank's kept tags without a class, by name, since the training began.
        outcomes: Samples of the latest epoch: `READ`, or the reason why they were skipped.
    """

    def __init__(
        self,
        steps: Steps,
        examples: Examples,
        collate: Collate,
        *,
        workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        cache: ShardCache | None = None,
    ) -> None:
        self.skipped: Counter[str] = Counter()
        self.unmapped: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        # The batch sampler is not part of this object: in a cycle of references, the garbage collector would
        # finalise the queues before the workers, which then take five seconds each to notice.
        self._place, self._examples, self._cache = steps, examples, cache
        self._batches: DataLoader[Any] = DataLoader(
            examples,  # type: ignore[arg-type]  # it has __getitems__, which is all that is called
            batch_sampler=steps,
            num_workers=workers,
            worker_init_fn=_outlast if workers else None,
            collate_fn=collate,
            persistent_workers=workers > 0,
            prefetch_factor=prefetch if workers else None,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else every epoch would draw from the generator that the model uses
        )
        if not steps.count(0):
            share = steps.share
            raise ConfigError(
                f"the samples of an epoch do not fill one step of {share.step} (batch_size "
                f"{share.batch_size} x {share.world} ranks): lower batch_size"
            )

    @property
    def epoch(self) -> int:
        """Count the epochs that are done."""
        return self._place.epoch

    @property
    def position(self) -> int:
        """Count the samples of the current epoch that all ranks together were given."""
        return self._place.position

    def steps(self, epoch: int = 0) -> int:
        """Count the steps of a whole epoch, the same for all ranks."""
        return self._place.count(epoch)

    def steps_left(self) -> int:
        """Count the steps that are left of the current epoch."""
        return self._place.left()

    @property
    def starts_workers(self) -> bool:
        """Tell whether the next batch comes from workers that are to be forked yet."""
        return self._batches.num_workers > 0 and self._batches._iterator is None

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Give the datasets, all shards of the split."""
        return self._place.datasets

    @property
    def origins(self) -> tuple[DatasetInfo, ...]:
        """Give how the tags of each dataset become targets."""
        return self._examples.origins

    def repeat(self, factors: Sequence[NDArray[np.float32]]) -> None:
        """Show samples by their factors, float32 [samples] a dataset; before the first batch."""
        self._place.repeat(factors)

    def number(self, address: Address) -> int:
        """Give the number of a sample in its dataset."""
        return self._place.number(address)

    def targets(self, size: int) -> Iterator[list[tuple[Address, Target]]]:
        """Read what this rank's share of all samples teaches, each once, by up to `size`; no images."""
        return map(self._examples.targets, self._place.samples(size))

    def __iter__(self) -> Iterator[Batch]:
        _check_agreement(self._place.common())
        if not self.position:
            self.outcomes.clear()
        for batch in self._read():
            self._place.position += self._place.share.step
            skipped = Counter(str(skipped.reason) for skipped in batch.skipped)
            self.skipped.update(skipped)
            self.outcomes.update(skipped | Counter({READ: int(batch.valid.sum())}))
            self.unmapped.update(batch.unmapped)
            yield batch
        self._place.epoch += 1
        self._place.position = 0

    def _read(self) -> Iterator[Batch]:
        """Read the batches; a cache is filled meanwhile, which begins when the workers have been forked.

        Raises DamageError or OSError for a shard that cannot be read, ConfigError for a cache that cannot.
        """
        batches, cache = iter(self._batches), self._cache
        with cache.filling(self._place.uses(), lambda: self._place.position) if cache else nullcontext():
            for batch in batches:
                if cache is not None:
                    cache.check()
                if isinstance(batch, Failed):
                    raise batch.error
                yield batch

    def close(self) -> None:
        """End the workers. Left to the end of the process, they would outlast it, see `_outlast`."""
        running, self._batches._iterator = self._batches._iterator, None
        if isinstance(running, _MultiProcessingDataLoaderIter):
            running._shutdown_workers()

    def state_dict(self) -> dict[str, Any]:
        """Give what is needed to go on behind the last batch: plain numbers and strings.

        Epoch and position are the same for all ranks, and hold for any number of ranks and any batch size.
        """
        return {
            "epoch": self.epoch,
            "position": self.position,
            "order": self._place.fingerprint,
            "skipped": dict(self.skipped),
            "unmapped": dict(self.unmapped),
            "outcomes": dict(self.outcomes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken. Raises ConfigError if that was in another order."""
        if state["order"] != self._place.fingerprint:
            raise ConfigError(
                "the state to resume from belongs to another sample order: give the seed, window, datasets, "
                "weights, repeat factors and split of that training, or start a new one"
            )
        self._place.epoch, self._place.position = int(state["epoch"]), int(state["position"])
        self.skipped, self.unmapped = Counter(state["skipped"]), Counter(state["unmapped"])
        self.outcomes = Counter(state.get("outcomes", {}))


def _outlast(worker: int) -> None:
    """Have a worker outlast one SIGTERM; a second one ends it.

    Sent to a whole group of processes, as torchrun and batch systems do, it asks a training to end after its
    step: batches are still wanted then, and torch ends a training whose worker was killed.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


def _check_agreement(digest: str) -> None:
    """Compare a digest with those of all other ranks: one small exchange, in which nothing is pickled."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    mine = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=device)
    found = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, mine)
    others = [rank for rank, theirs in enumerate(found) if not torch.equal(theirs, found[0])]
    if others:
        raise ConfigError(
            f"ranks {', '.join(map(str, others))} read other data than rank 0: give all ranks the same "
            "config, datasets and checkpoint"
        )
