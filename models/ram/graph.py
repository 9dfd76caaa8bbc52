"""A model's forward pass as the graph that is exported, and how such a graph is checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.store import Model
from tagmill.models.ram.tag2text import Tag2Text

TOLERANCE = 1e-3
"""Largest difference of a logit that an exported graph may have."""

BATCHES = (1, 3)
"""Sizes of the batches that a graph is checked with; it is traced with 2."""

COUNTS = (1, 5)
"""Numbers of classes that an open-set graph is checked with, beside the model's own."""


class Graph(nn.Module):
    """The forward pass with its classes in one piece, and no free size ever turned into a number.

    The model's own pass takes the classes in chunks, which a graph would hold one after the other, each
    with all of the head's steps.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Normalised images [B, 3, S, S] to logits [B, classes].

        `labels` [classes, descriptions, dimension] are other classes than the model's own.
        """
        model, batch = self.model, images.shape[0]
        tokens = model.encode(images)
        memories = model.head.remember(tokens)
        if isinstance(model, Tag2Text):
            found = model.head(model.label_embed.expand(batch, -1, -1), memories)
            return (found * model.score_weight).sum(2) + model.score_bias
        asked = model.labels if labels is None else labels
        vectors = F.relu(model.label_projection(model.describe(tokens, asked)))
        return model.score_projection(model.head(vectors.expand(batch, -1, -1), memories)).squeeze(-1)


def trace(model: Model, labels: Tensor | None = None) -> ExportedProgram:
    """Trace the forward pass with free sizes; without gradients, as it then is at its fastest."""
    inputs, free = [images_of(model.config, 2)], [{0: Dim("batch", min=1)}]
    if labels is not None:
        inputs.append(labels)
        free.append({0: Dim("classes", min=1)})
        if model.config.kind == "ram_plus":
            free[-1][1] = Dim("descriptions", min=1)
    with torch.no_grad():
        return torch.export.export(
            Graph(model).eval(), tuple(inputs), dynamic_shapes=tuple(free), strict=False
        )


def compare(model: Model, run: Callable[[Tensor], Any], path: Path) -> float:
    """Give the largest difference of logits. Raises ArithmeticError if it is larger than `TOLERANCE`."""
    largest = 0.0
    with torch.no_grad():
        for count in BATCHES:
            images = images_of(model.config, count)
            largest = max(largest, float((run(images) - model(images)).abs().max()))
    return _checked(largest, path)


def compare_open(model: Ram, run: Callable[[Tensor, Tensor], Any], path: Path) -> float:
    """Do what `compare` does with other classes, as many as `COUNTS` say."""
    largest = 0.0
    with torch.no_grad():
        for count, classes in zip(BATCHES, COUNTS, strict=True):
            images, labels = images_of(model.config, count), labels_of(model.config, classes)
            expected = model.score(model.encode(images), labels)
            largest = max(largest, float((run(images, labels) - expected).abs().max()))
    return _checked(largest, path)


def _checked(largest: float, path: Path) -> float:
    if not largest <= TOLERANCE:
        raise ArithmeticError(f"{path.name}: its logits differ by {largest:.2g}, more than {TOLERANCE:g}")
    return largest


def images_of(config: RamConfig, count: int) -> Tensor:
    """Make images as they are when they are normalised."""
    chance = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, config.image_size, config.image_size, generator=chance)


def labels_of(config: RamConfig, classes: int) -> Tensor:
    """Make label embeddings [classes, descriptions, dimension]."""
    chance = torch.Generator().manual_seed(classes)
    descriptions = 1 + classes // 2 if config.kind == "ram_plus" else 1
    return F.normalize(torch.randn(classes, descriptions, config.dimension, generator=chance), dim=-1)
