"""Calls a model on images as the stages do: each is prepared, then all are predicted as one batch."""

from collections.abc import Sequence
from typing import Any

from tagmill.models.base import Image, PixelModel


def predict(model: Any, images: Sequence[Image], *prompts: Any) -> Any:
    return model.predict(prepared(model, images), *prompts)


def prepared(model: PixelModel, images: Sequence[Image]) -> list[Any]:
    return [model.prepare(image) for image in images]
