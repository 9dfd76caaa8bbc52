"""Compares the batches that a loader gives."""

from collections.abc import Iterable

import torch

from tagmill.models.training.batches import Batch


def ids(batches: Iterable[Batch]) -> list[tuple[str, str]]:
    """The dataset and key of every sample, in order."""
    return [name for batch in batches for name in batch.ids]


def same(first: Batch, second: Batch) -> bool:
    """Whether two batches are equal to the last bit."""
    tensors = ("images", "targets", "known", "mentioned", "valid")
    others = ("captions", "ids", "skipped", "unmapped")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors) and all(
        getattr(first, name) == getattr(second, name) for name in others
    )
