"""Scoring only the classes that an image may show: exact for them, and silent about all others.

Nothing in the tagging head lets one class see another, so a class scores the same in any company, and what
a head of thousands of classes costs falls with their number. Which classes an image may show is decided by
its CLIP similarity to their names. That similarity is of the whole image: small things beside large ones are
what it loses (tests/benchmarks/class_subsets.py).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tagmill.models.base import Prepared
from tagmill.models.open_clip import OpenClip
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.store import Model


class Shortlist:
    """The `count` classes whose names are most like an image to a CLIP, which is loaded."""

    def __init__(self, classes: Sequence[str], count: int, clip: OpenClip) -> None:
        self._count, self._clip = min(count, len(classes)), clip
        self._names = torch.from_numpy(np.stack(clip.text(classes)))

    def choose(self, batch: Sequence[Prepared]) -> Tensor:
        """Give the indices of the classes of each image, prepared for the CLIP, rising: [B, count]."""
        vectors = torch.from_numpy(self._clip.predict(batch))
        return (vectors @ self._names.T).topk(self._count, dim=1).indices.sort(1).values


def score_some(model: Model, tokens: Tensor, chosen: Tensor) -> Tensor:
    """Score each image's own classes [B, K]: float32 [B, classes] in 0..1, and 0 for all not chosen."""
    scores = torch.zeros(len(tokens), len(model.config.classes), device=tokens.device)
    for row, classes in enumerate(chosen.to(tokens.device)):
        asked = model.labels[classes] if isinstance(model, Ram) else classes
        logits = model.score(tokens[row : row + 1], asked)
        scores[row, classes] = logits[0].float().sigmoid()
    return scores
