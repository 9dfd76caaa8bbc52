"""Models for the coloured squares that break their contract, in the way that an option names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from square_models import SquareEmbedder, SquareLocalizer, SquareTagger
from tagmill.models.base import Boxes, Image
from troubled_models import digest

SCORES: dict[str, Any] = {
    "nan": np.full(len(SquareTagger.classes), np.nan, np.float32),
    "shape": np.zeros((1, len(SquareTagger.classes)), np.float32),
    "text": ["much"] * len(SquareTagger.classes),
    "high": np.full(len(SquareTagger.classes), 12.5, np.float32),
    "none": None,
}

BOXES: dict[str, tuple[float, ...]] = {
    "inverted": (30, 30, 10, 10),
    "far": (5000, 5000, 5100, 5100),
    "nan": (0, 0, np.nan, 9),
    "endless": (0, 0, np.inf, 9),
}

CLASSES: dict[str, Any] = {"empty": ["red", " "], "number": ["red", 3], "text": "red", "nothing": []}

TEXTS: dict[str, Any] = {
    "nan": lambda names: [np.full(8, np.nan, np.float32) for _ in names],
    "zero": lambda names: [np.zeros(8, np.float32) for _ in names],
    "long": lambda names: [np.ones(8, np.float32) for _ in names],
    "fewer": lambda names: [],
}


class _Broken:
    """Breaks the contract for images with some digests, or for all."""

    def __init__(self, how: str, bad: Sequence[str] = ("all",)) -> None:
        self.how = how
        self.bad = bad

    def _is_bad(self, image: Image) -> bool:
        return "all" in self.bad or digest(image) in self.bad


class BrokenTagger(_Broken, SquareTagger):
    def predict(self, batch: Sequence[Image]) -> list[Any]:
        found = super().predict(batch)
        if self.how == "fewer" and any(map(self._is_bad, batch)):
            return found[:-1]
        return [
            SCORES[self.how] if self._is_bad(image) else scores
            for image, scores in zip(batch, found, strict=True)
        ]


class NamelessTagger(SquareTagger):
    def __init__(self, how: str) -> None:
        self.classes = CLASSES[how]


class BrokenLocalizer(_Broken, SquareLocalizer):
    def _find(self, image: Image, prompt: Sequence[str]) -> Boxes:
        found = super()._find(image, prompt)
        if not self._is_bad(image):
            return found
        return Boxes(np.array([0]), np.array([BOXES[self.how]], np.float32), np.array([0.9], np.float32))


class BrokenEmbedder(SquareEmbedder):
    """Gives text vectors, or for "regions" vectors of regions, that are none."""

    def __init__(self, how: str) -> None:
        self.how = how

    def predict(self, batch: Sequence[Image]) -> Any:
        return super().predict(batch) * (0 if self.how == "regions" else 1)

    def text(self, names: Sequence[str]) -> Any:
        return TEXTS[self.how](names) if self.how in TEXTS else super().text(names)
