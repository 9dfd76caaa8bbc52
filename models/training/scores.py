"""Scores and labels of many images on disk, written by image and read by tag, in bounded memory.

The metrics need all scores of one tag at once, a model gives all scores of one image at once. Rows are
therefore collected into blocks, and each block is written turned over, [tags, rows]: writing is sequential,
and some tags of all images are one short read a block. Scores stay float32, so nothing that is measured
on them is rounded; float16 would make ties of scores that differ, and an average precision that moves with
them. 57,000 images x 4,585 tags take 1.3 GB of disk.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmill.models.base import Floats

NEGATIVE, POSITIVE, UNKNOWN = 0, 1, 2
"""Labels; what is unknown of an image counts neither for a tag nor against it."""

Labels = NDArray[np.uint8]

SCORES, LABELS = "scores.f4", "labels.u1"
BLOCK = 512
"""Images that are turned over at a time: 12 MB at 4,585 tags."""

READ = 64 << 20
"""Bytes of scores and labels that a reader holds at a time."""


@dataclass(frozen=True)
class Columns:
    """All images' scores [tags, images] and labels, alike in shape, of tags from `start` on."""

    start: int
    scores: Floats
    labels: Labels


def labels_of(values: Floats, known: Floats) -> Labels:
    """Make labels of targets, 0 or 1, and of what is known of them, 0 or 1; alike in shape."""
    return np.where(known == 0, UNKNOWN, values).astype(np.uint8)


class ScoreWriter:
    """Collects scores into a folder, which is made; what an earlier writer left there is replaced."""

    def __init__(self, folder: Path, tags: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (SCORES, LABELS):
            (folder / name).write_bytes(b"")
        self._folder, self._tags = folder, tags
        self._scores = np.empty((BLOCK, tags), np.float32)
        self._labels = np.empty((BLOCK, tags), np.uint8)
        self._held, self._keys = 0, list[str]()

    def add(self, keys: Sequence[str], scores: Floats, labels: Labels) -> None:
        """Add images: their keys, scores [images, tags] in 0..1 and labels of the same shape.

        Raises ValueError for shapes that do not fit, and FloatingPointError for scores that are not numbers.
        """
        if not scores.shape == labels.shape == (len(keys), self._tags):
            raise ValueError(f"{len(keys)} x {self._tags} scores, got {scores.shape} and {labels.shape}")
        if np.isnan(scores).any():
            raise FloatingPointError("the model gave NaN; float16 can overflow, try bfloat16 or float32")
        self._keys += keys
        done = 0
        while done < len(keys):
            count = min(BLOCK - self._held, len(keys) - done)
            self._scores[self._held : self._held + count] = scores[done : done + count]
            self._labels[self._held : self._held + count] = labels[done : done + count]
            self._held, done = self._held + count, done + count
            if self._held == BLOCK:
                self._flush()

    def close(self) -> "ScoreStore":
        """Write what is left, and open all that was written."""
        self._flush()
        return ScoreStore(self._folder, tuple(self._keys), self._tags)

    def _flush(self) -> None:
        self._append(SCORES, self._scores[: self._held])
        self._append(LABELS, self._labels[: self._held])
        self._held = 0

    def _append(self, name: str, rows: NDArray[Any]) -> None:
        with open(self._folder / name, "ab") as file:
            file.write(rows.T.tobytes())


@dataclass(frozen=True)
class ScoreStore:
    """What a `ScoreWriter` wrote into a folder: images by `keys`, and so many tags."""

    folder: Path
    keys: tuple[str, ...]
    tags: int

    def columns(self, budget: int = READ) -> Iterator[Columns]:
        """Give all tags, as many at a time as fit into a budget of bytes (at least one)."""
        step = max(1, budget // (5 * max(1, len(self.keys))))
        with open(self.folder / SCORES, "rb") as scores, open(self.folder / LABELS, "rb") as labels:
            for start in range(0, self.tags, step):
                stop = min(start + step, self.tags)
                yield Columns(
                    start,
                    self._read(scores.fileno(), start, stop, np.float32),
                    self._read(labels.fileno(), start, stop, np.uint8),
                )

    def remove(self) -> None:
        """Delete the files, and the folder if nothing else is in it."""
        for name in (SCORES, LABELS):
            (self.folder / name).unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _read(self, file: int, start: int, stop: int, dtype: type[Any]) -> NDArray[Any]:
        size, images = np.dtype(dtype).itemsize, len(self.keys)
        found = np.empty((stop - start, images), dtype)
        for first in range(0, images, BLOCK):
            rows = min(BLOCK, images - first)
            begin = (first * self.tags + start * rows) * size
            data = os.pread(file, (stop - start) * rows * size, begin)
            found[:, first : first + rows] = np.frombuffer(data, dtype).reshape(-1, rows)
        return found
