"""Models that do, on demand, what a stage must cope with: they answer by the size of the image."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from square_models import SquareTagger
from tagmill.models.base import Boxes, Floats, Image


class PickyTagger(SquareTagger):
    """Fails on images whose width is in `bad`."""

    def __init__(self, bad: Sequence[int]) -> None:
        self.bad = set(bad)

    def predict(self, images: Sequence[Image]) -> list[Floats]:
        for image in images:
            if image.shape[1] in self.bad:
                raise KeyError(f"width {image.shape[1]}")
        return super().predict(images)


class OverflowingTagger(SquareTagger):
    """Gives NaN for images of one width, as half precision does on overflow."""

    def __init__(self, width: int) -> None:
        self.width = width

    def predict(self, images: Sequence[Image]) -> list[Floats]:
        found = super().predict(images)
        return [f * np.nan if i.shape[1] == self.width else f for f, i in zip(found, images, strict=True)]


class WitnessTagger(SquareTagger):
    """Remembers the sizes of its batches."""

    batches: ClassVar[list[int]] = []

    def predict(self, images: Sequence[Image]) -> list[Floats]:
        self.batches.append(len(images))
        return super().predict(images)


class ScriptedLocalizer:
    """Gives the boxes of its script, (name, x1, y1, x2, y2, score), for the names that it is asked."""

    def __init__(self, script: Sequence[Sequence[float | str]], classes: Sequence[str] | None = None) -> None:
        self.script = script
        self.classes = classes
        self.asked: list[list[str]] = []

    def fingerprint(self) -> str:
        return f"scripted {self.script} {self.classes}"

    def load(self) -> None: ...

    def predict(self, images: Sequence[Image], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        return [self._answer(list(prompt)) for prompt in prompts]

    def _answer(self, prompt: list[str]) -> Boxes:
        self.asked.append(prompt)
        found = [line for line in self.script if line[0] in prompt]
        return Boxes(
            tags=np.array([prompt.index(str(line[0])) for line in found], dtype=np.int64),
            boxes=np.array([line[1:5] for line in found], dtype=np.float32).reshape(-1, 4),
            scores=np.array([line[5] for line in found], dtype=np.float32),
        )


class FixedEmbedder:
    """Embeds every image as the same vector, and names as `vectors` says; others it cannot embed."""

    def __init__(self, vectors: dict[str, Sequence[float]]) -> None:
        self.vectors = vectors
        self.sizes: list[tuple[int, ...]] = []

    def fingerprint(self) -> str:
        return f"fixed {self.vectors}"

    def load(self) -> None: ...

    def predict(self, images: Sequence[Image]) -> Floats:
        self.sizes += [image.shape for image in images]
        return np.tile(np.array([1, 0], dtype=np.float32), (len(images), 1))

    def text(self, names: Sequence[str]) -> list[Floats | None]:
        return [np.array(self.vectors[n], dtype=np.float32) if n in self.vectors else None for n in names]
