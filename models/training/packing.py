"""Packs prepared images into tensors, so that they pass between processes without a copy.

A loader's process sends tensors through shared memory and all else through a pipe, at a third of the images a
second for arrays of 384 x 384 pixels. So a batch is pickled without its arrays, and they lie in one tensor.
"""

import pickle
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tagmill.models.training.examples import Failed

Packed = tuple[bytes, Tensor, list[tuple[int, int]]]
"""A pickle, the bytes of its arrays, and where each of them begins and ends there."""

ALIGNED = 64
"""Bytes; arrays begin at multiples of it, as libraries expect."""


def batches(samples: Any, workers: int, **how: Any) -> Iterator[list[Any]]:
    """Give the samples of a map-style dataset in lists; `how` are the other options of torch's DataLoader.

    Raises what made the dataset give a `Failed` in the place of a list.
    """
    collate = _pack if workers else _as_is
    loader: DataLoader[Any] = DataLoader(samples, num_workers=workers, collate_fn=collate, **how)
    for found in map(_unpack, loader) if workers else loader:
        if isinstance(found, Failed):
            raise found.error
        yield found


def _as_is(samples: Sequence[Any] | Failed) -> Sequence[Any] | Failed:
    return samples


def _pack(samples: Sequence[Any] | Failed) -> Packed:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(samples, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    starts = list(accumulate((-(-len(array) // ALIGNED) * ALIGNED for array in arrays), initial=0))
    packed = torch.empty(starts[-1], dtype=torch.uint8)
    places = [(start, start + len(array)) for start, array in zip(starts, arrays, strict=False)]
    room = packed.numpy()
    for (start, stop), array in zip(places, arrays, strict=True):
        room[start:stop] = array
    return data, packed, places


def _unpack(packed: Packed) -> list[Any] | Failed:
    data, arrays, places = packed
    room = arrays.numpy()
    found: list[Any] | Failed = pickle.loads(data, buffers=[room[start:stop] for start, stop in places])
    return found
