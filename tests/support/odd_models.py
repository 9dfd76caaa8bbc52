"""Models that do, on demand, what a stage must cope with: they answer by the size of the image."""

import threading
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from square_models import SquareLocalizer, SquareModel, SquareTagger
from tagmill.models.base import Boxes, Floats, Image


class PickyTagger(SquareTagger):
    """Fails to predict images whose width is in `bad`, and to prepare those in `unprepared`."""

    def __init__(self, bad: Sequence[int], unprepared: Sequence[int] = ()) -> None:
        self.bad = set(bad)
        self.unprepared = set(unprepared)

    def prepare(self, image: Image) -> Image:
        if image.shape[1] in self.unprepared:
            raise KeyError(f"width {image.shape[1]}")
        return image

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        for image in batch:
            if image.shape[1] in self.bad:
                raise KeyError(f"width {image.shape[1]}")
        return super().predict(batch)


class OldTagger:
    """Has the form of before there was `prepare`."""

    classes = SquareTagger.classes

    def fingerprint(self) -> str:
        return "old"

    def load(self) -> None: ...

    def predict(self, images: Sequence[Image]) -> list[Floats]:
        return SquareTagger().predict(images)


class ThreadsTagger(SquareTagger):
    """Remembers in which threads it was called; takes five milliseconds to prepare an image."""

    prepared: ClassVar[list[str]] = []
    predicted: ClassVar[list[str]] = []

    def prepare(self, image: Image) -> Image:
        self.prepared.append(threading.current_thread().name)
        time.sleep(0.005)
        return image

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        self.predicted.append(threading.current_thread().name)
        return super().predict(batch)


class OverflowingTagger(SquareTagger):
    """Gives NaN for images of one width, as half precision does on overflow."""

    def __init__(self, width: int) -> None:
        self.width = width

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        found = super().predict(batch)
        return [f * np.nan if i.shape[1] == self.width else f for f, i in zip(found, batch, strict=True)]


class WitnessTagger(SquareTagger):
    """Remembers the sizes of its batches."""

    batches: ClassVar[list[int]] = []

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        self.batches.append(len(batch))
        return super().predict(batch)


class ScriptedLocalizer(SquareModel):
    """Gives the boxes of its script, (name, x1, y1, x2, y2, score), for the names that it is asked."""

    def __init__(self, script: Sequence[Sequence[float | str]], classes: Sequence[str] | None = None) -> None:
        self.script = script
        self.classes = classes
        self.asked: list[list[str]] = []

    def fingerprint(self) -> str:
        return f"scripted {self.script} {self.classes}"

    def predict(self, batch: Sequence[Image], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        return [self._answer(list(prompt)) for prompt in prompts]

    def _answer(self, prompt: list[str]) -> Boxes:
        self.asked.append(prompt)
        found = [line for line in self.script if line[0] in prompt]
        return Boxes(
            tags=np.array([prompt.index(str(line[0])) for line in found], dtype=np.int64),
            boxes=np.array([line[1:5] for line in found], dtype=np.float32).reshape(-1, 4),
            scores=np.array([line[5] for line in found], dtype=np.float32),
        )


class FixedEmbedder(SquareModel):
    """Embeds every image as the same vector, and names as `vectors` says; others it cannot embed."""

    def __init__(self, vectors: dict[str, Sequence[float]]) -> None:
        self.vectors = vectors
        self.sizes: list[tuple[int, ...]] = []

    def fingerprint(self) -> str:
        return f"fixed {self.vectors}"

    def predict(self, batch: Sequence[Image]) -> Floats:
        self.sizes += [image.shape for image in batch]
        return np.tile(np.array([1, 0], dtype=np.float32), (len(batch), 1))

    def text(self, names: Sequence[str]) -> list[Floats | None]:
        return [np.array(self.vectors[n], dtype=np.float32) if n in self.vectors else None for n in names]


class RenamedTagger(SquareTagger):
    """Calls colours by other names, and wants a score of its own for each."""

    def __init__(self, names: dict[str, str], threshold: float) -> None:
        self.classes = [names.get(name, name) for name in SquareTagger.classes]
        self.thresholds = [threshold] * len(self.classes)


class HalfCalibratedTagger(SquareTagger):
    """Has a threshold for one of its classes."""

    thresholds = (0.5,)


class FaithlessTagger(SquareTagger):
    """Answers otherwise than a tagger should, in the way that it is told."""

    def __init__(self, how: str) -> None:
        self.how = how

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        found = super().predict(batch)
        answers = {
            "few classes": [scores[:2] for scores in found],
            "logits": [20 * scores - 10 for scores in found],
            "few images": found[1:],
            "nothing": None,
        }
        return answers[self.how]


class SmallTagger(SquareTagger):
    """Says that it takes images of 100 pixels, and remembers the shapes that it was given."""

    given: ClassVar[list[tuple[int, ...]]] = []

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        return 100, 100

    def prepare(self, image: Image) -> Image:
        self.given.append(image.shape)
        return image


class SmallLocalizer(SquareLocalizer):
    """Says that it takes images of 50 pixels."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        return 50, 50
