"""A user's own models for the coloured squares of `sources`: small, exact, without weights."""

from collections.abc import Sequence

import numpy as np

from sources import COLOURS
from tagmill.models.base import Boxes, Floats, Image

CENTRES = np.array(list(COLOURS.values()), dtype=np.float32)
NAMES = list(COLOURS)


def shares(image: Image) -> Floats:
    """The share of pixels that are near each colour: (colours,)."""
    distance = np.linalg.norm(image.astype(np.float32)[:, :, None] - CENTRES, axis=-1)
    return (distance < 40).mean(axis=(0, 1)).astype(np.float32)


class SquareModel:
    def fingerprint(self) -> str:
        return f"{type(self).__name__}-1"

    def load(self) -> None: ...

    def prepare(self, image: Image) -> Image:
        return image

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        return width, height


class SquareTagger(SquareModel):
    classes = NAMES

    def predict(self, batch: Sequence[Image]) -> list[Floats]:
        return [np.minimum(1, shares(image) * 20).astype(np.float32) for image in batch]


class SquareLocalizer(SquareModel):
    classes = None

    def predict(self, batch: Sequence[Image], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        return [self._find(image, prompt) for image, prompt in zip(batch, prompts, strict=True)]

    def _find(self, image: Image, prompt: Sequence[str]) -> Boxes:
        found = []
        for place, name in enumerate(prompt):
            near = np.linalg.norm(image.astype(np.float32) - CENTRES[NAMES.index(name)], axis=-1) < 40
            if near.any():
                ys, xs = np.nonzero(near)
                found.append((place, (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), 0.9))
        return Boxes(
            tags=np.array([place for place, _, _ in found], dtype=np.int64),
            boxes=np.array([box for _, box, _ in found], dtype=np.float32).reshape(-1, 4),
            scores=np.array([score for _, _, score in found], dtype=np.float32),
        )


class SquareEmbedder(SquareModel):
    def predict(self, batch: Sequence[Image]) -> Floats:
        vectors = np.stack([shares(image) + 1e-3 for image in batch])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def text(self, names: Sequence[str]) -> list[Floats | None]:
        axes = np.eye(len(NAMES), dtype=np.float32)
        return [axes[NAMES.index(name)] if name in NAMES else None for name in names]


class SquareTeacher(SquareModel):
    def __init__(self, scale: float = 10.0) -> None:
        self._scale = scale

    def fingerprint(self) -> str:
        return f"SquareTeacher-{self._scale}"

    def image_features(self, batch: Sequence[Image]) -> Floats:
        return np.stack([self._scale * shares(image) for image in batch])


class SquareCaptioner(SquareModel):
    def predict(self, batch: Sequence[Image]) -> list[str]:
        return [
            " and ".join(
                f"a {name} square" for name, share in zip(NAMES, shares(image), strict=True) if share
            )
            for image in batch
        ]
