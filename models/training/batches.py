"""Collates samples into batches, with the skipped samples and a mask of real rows."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from tagmill.models.training.examples import Failed, Skipped, TrainingExample
from tagmill.models.training.targets import Target


@dataclass(frozen=True)
class Batch:
    """B samples for C classes. Every batch of every rank has B rows, however many samples were skipped.

    Attributes:
        images: float32 [B, 3, height, width].
        targets: float32 [B, C], 0 or 1.
        known: float32 [B, C], 0 where a tag is uncertain or the dataset does not know the class, else 1;
            multiply the loss by it.
        mentioned: bool [B, C], whether the row's caption names the class.
        features: float32 [B, D], stored features to distil from; NaN where an image has none, D is 0 without.
        valid: bool [B], False for padding and skipped samples, whose rows are zero and empty.
        captions: B captions, empty where there is none.
        ids: B pairs of dataset and key.
        skipped: The samples that could not be used.
        unmapped: Counts of kept tags without a class.
    """

    images: Tensor
    targets: Tensor
    known: Tensor
    mentioned: Tensor
    features: Tensor
    valid: Tensor
    captions: tuple[str, ...]
    ids: tuple[tuple[str, str], ...]
    skipped: tuple[Skipped, ...]
    unmapped: Counter[str]

    def __len__(self) -> int:
        return len(self.valid)

    def pin_memory(self) -> "Batch":
        """Copy into pinned memory; the DataLoader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> "Batch":
        """Copy onto a device, without waiting for it where the memory is pinned."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            images=change(self.images),
            targets=change(self.targets),
            known=change(self.known),
            mentioned=change(self.mentioned),
            features=change(self.features),
            valid=change(self.valid),
        )


class Collate:
    """Collates the samples of `Examples`; it is given the shapes of an empty row."""

    def __init__(self, classes: int, image: tuple[int, int, int], dimension: int = 0) -> None:
        nothing = np.zeros(classes, np.float32)
        target = Target(nothing, nothing, np.zeros(classes, np.bool_), ())
        features = np.full(dimension, np.nan, np.float32)
        self._blank = TrainingExample("", "", torch.zeros(image), target, "", features)

    def __call__(self, samples: Sequence[TrainingExample | Skipped | None] | Failed) -> Batch | Failed:
        """Make a batch of the rows, if they could be read."""
        if isinstance(samples, Failed):
            return samples
        rows = [sample if isinstance(sample, TrainingExample) else self._blank for sample in samples]
        # Collated by torch, the tensors of a worker lie in shared memory from the start and are not copied.
        return Batch(
            default_collate([row.image for row in rows]),
            default_collate([torch.from_numpy(row.target.values) for row in rows]),
            default_collate([torch.from_numpy(row.target.known) for row in rows]),
            default_collate([torch.from_numpy(row.target.mentioned) for row in rows]),
            default_collate([torch.from_numpy(row.features) for row in rows]),
            torch.tensor([isinstance(sample, TrainingExample) for sample in samples]),
            tuple(row.caption for row in rows),
            tuple((row.dataset, row.key) for row in rows),
            tuple(sample for sample in samples if isinstance(sample, Skipped)),
            Counter(name for row in rows for name in row.target.unmapped),
        )
