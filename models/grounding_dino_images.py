"""What Grounding DINO takes of an image: resized, normalised and padded; and how large that will be."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tagmill.models.base import Image


@dataclass(frozen=True)
class Picture:
    """One image: `pixels` (3, height, width) float32, `inside` its height and width without the padding.

    `shape` is the height and width that it had.
    """

    pixels: Any
    inside: tuple[int, int]
    shape: tuple[int, int]


class Preparation:
    """Prepares images as the checkpoint in a folder expects them, or with other sides.

    `shortest` and `longest`: sides in pixels to which images are resized, None for the checkpoint's; both
    are then padded to a multiple of `pad_to`. The folder is asked for when it is needed.
    """

    def __init__(
        self, folder: Callable[[], Path], shortest: int | None, longest: int | None, pad_to: int
    ) -> None:
        self._folder, self._pad_to = folder, pad_to
        self._shortest, self._longest = shortest, longest

    @cached_property
    def processor(self) -> Any:
        """The checkpoint's image processor; it has no weights."""
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(self._folder(), local_files_only=True)

    @cached_property
    def edges(self) -> tuple[int, int]:
        """The short side to which an image is resized, and the long side that it may have."""
        own = self.processor.size
        return self._shortest or own["shortest_edge"], self._longest or own["longest_edge"]

    def prepare(self, image: Image) -> Picture:
        """Resize, normalise and pad one image, on the CPU."""
        import torch

        height, width, _ = image.shape
        shortest, longest = self.edges
        pixels = self.processor(
            images=[enlarged(image, longest)],
            size={"shortest_edge": shortest, "longest_edge": longest},
            do_pad=False,
            return_tensors="pt",
            input_data_format="channels_last",
        )["pixel_values"][0]
        _, high, wide = pixels.shape
        below, right = -high % self._pad_to, -wide % self._pad_to
        return Picture(torch.nn.functional.pad(pixels, (0, right, 0, below)), (high, wide), (height, width))

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say how wide and high an image of this size will be, resized and padded."""
        wide, high = self.unpadded_size_of(width, height)
        return wide + -wide % self._pad_to, high + -high % self._pad_to

    def unpadded_size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say how wide and high an image of this size will be, resized alone."""
        return size_within(width, height, *self.edges)


def enlarged(image: Image, longest: int) -> Image:
    """Repeat rows and columns: of a side too short, resizing would leave nothing."""
    down, across = _repeats(image.shape[1], image.shape[0], longest)
    image = np.repeat(image, down, 0) if down > 1 else image
    return np.repeat(image, across, 1) if across > 1 else image


def size_within(width: int, height: int, shortest: int, longest: int) -> tuple[int, int]:
    """Say how wide and high an image is once its short side is `shortest`, or its long side `longest`."""
    down, across = _repeats(width, height, longest)
    width, height = width * across, height * down
    short, long = min(width, height), max(width, height)
    side: float = shortest
    if long / short * shortest > longest:
        side = longest * short / long
    if short == round(side):
        return width, height
    other = int(side * long / short)
    return (round(side), other) if width < height else (other, round(side))


def _repeats(width: int, height: int, longest: int) -> tuple[int, int]:
    """Say how often to repeat rows and columns: of a side too short, resizing would leave nothing."""
    least = -(-max(width, height) // longest)
    return max(1, -(-least // height)), max(1, -(-least // width))
