"""How good a training's model is on the split val: its loss, mAP, CF1, OF1 and a table of its classes.

The figures are those of `metrics`, over the classes that have positives in val, by the model's own thresholds
or else `calibration.USUAL`. True is what the engine decided, and what is masked in training (uncertain tags,
classes that a dataset does not know) counts neither for a class nor against it. The first process gathers the
scores of all, batch by batch, in a store on disk, so that the figures are those of all images whatever the
number of processes, and memory does not grow with them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmill.models.base import Floats, Image
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.store import Model
from tagmill.models.training.batches import Batch
from tagmill.models.training.calibration import USUAL
from tagmill.models.training.loader import Loader
from tagmill.models.training.metrics import Metrics, measure
from tagmill.models.training.objectives import Objective
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import Figure
from tagmill.models.training.scores import UNKNOWN, Labels, ScoreWriter, labels_of
from tagmill.tag_system.core.errors import ConfigError

SCORES = "validation"
"""Folder in that of the training for the scores, while they are measured."""


@dataclass(frozen=True)
class Pictured:
    """An image of val as the model sees it, with scores [classes], labels and thresholds of its classes."""

    key: str
    pixels: Image
    classes: tuple[str, ...]
    scores: Floats
    labels: Labels
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Quality:
    """What a validation found.

    Attributes:
        figures: The mean tagging `loss` of an image, and `map`, `cf1`, `of1` as fractions; those are left out
            that there was nothing to measure on.
        classes: Classes that have positives.
        metrics: The metrics of all classes; None but in the first process.
        pictures: Some images of the first process.
    """

    figures: dict[Figure, float]
    classes: int
    metrics: Metrics | None
    pictures: tuple[Pictured, ...]

    def lack(self, figure: Figure) -> str:
        """Say why a figure could not be measured; nothing if it was."""
        if figure in self.figures:
            return ""
        if "loss" not in self.figures:
            return "no sample of val is left: no figures, and no best"
        return f"no class has a positive in val: no {figure}, and no best; validate.best_by: loss needs none"

    def as_log(self) -> dict[str, float]:
        """Give the figures as the log names them."""
        names = {"loss": "tagging"}
        return {f"val_{names.get(name, name)}": value for name, value in self.figures.items()}


class Validator:
    """Measures models on a loader's samples; `out` is the folder of the training."""

    def __init__(
        self, loader: Loader, objective: Objective, config: RamConfig, process: Process, out: Path
    ) -> None:
        self.loader = loader
        self._objective, self._config, self._process = objective, config, process
        self._folder = out / SCORES
        self._thresholds = config.thresholds or (USUAL,) * len(config.classes)

    @torch.no_grad()
    def measure(
        self, model: Model, autocast: Callable[[], AbstractContextManager[Any]], pictures: int = 0
    ) -> Quality:
        """Measure a model, and show so many of the images.

        Raises ConfigError, in all processes, if a score is not a number.
        """
        process, whole = self._process, self._scorer(model)
        writer = ScoreWriter(self._folder, len(self._config.classes)) if process.first else None
        sums = torch.zeros(2, dtype=torch.float64, device=process.device)
        shown: list[Pictured] = []
        model.eval()
        for given in self.loader:
            batch = given.to(process.device)
            with autocast():
                logits = whole(batch.images)
            has_caption = torch.tensor([bool(text) for text in batch.captions], device=process.device)
            sums[0] += self._objective.tagging(logits, batch, has_caption)
            sums[1] += batch.valid.sum()
            scores = logits.float().sigmoid()
            labels = labels_of(given.targets.numpy(), given.known.numpy())
            self._add(writer, scores, labels)
            if process.first and len(shown) < pictures:
                shown += self._pictured(given, scores, labels, pictures - len(shown))
        model.train()
        total, count = process.sum(sums).tolist()
        figures: dict[Figure, float] = {"loss": total / count} if count else {}
        metrics = None if writer is None else self._metrics(writer)
        found, classes = self._shared(metrics)
        return Quality(figures | found, classes, metrics, tuple(shown))

    def _scorer(self, model: Any) -> Callable[[Tensor], Tensor]:
        """Give what scores images; a model that is shared out works by way of its objective alone."""
        if model is self._objective.model:
            return self._objective.scores
        return lambda images: model.score(model.encode(images))

    def _add(self, writer: ScoreWriter | None, scores: Tensor, labels: Labels) -> None:
        """Bring the rows of all processes to the first; those of which nothing is known are left out."""
        process = self._process
        every = process.all_gather(torch.from_numpy(labels).to(process.device)).cpu().numpy()
        known = (every != UNKNOWN).any(1)
        found = process.all_gather(scores).cpu().numpy()[known]
        if np.isnan(found).any():
            raise ConfigError(
                "the scores of val are not numbers: start again, or go on from a checkpoint before, with a "
                "lower schedule.learning_rate or engine.clip_norm"
            )
        if writer is not None:
            writer.add([""] * len(found), found, every[known])

    def _metrics(self, writer: ScoreWriter) -> Metrics:
        store = writer.close()
        try:
            return measure(store, self._config.classes, self._thresholds)
        finally:
            store.remove()

    def _shared(self, metrics: Metrics | None) -> tuple[dict[Figure, float], int]:
        """Tell all processes what the first one found, to the bit."""
        values = torch.zeros(4, dtype=torch.float64)
        if metrics is not None:
            found = metrics.present()
            values = torch.tensor([found.tags, found.map, found.cf1, found.of1], dtype=torch.float64)
        classes, map_, cf1, of1 = self._process.sum(values.to(self._process.device)).tolist()
        return ({"map": map_, "cf1": cf1, "of1": of1} if classes else {}), int(classes)

    def _pictured(self, batch: Batch, scores: Tensor, labels: Labels, most: int) -> list[Pictured]:
        rows = batch.valid.nonzero().flatten().tolist()[:most]
        found, classes = scores.cpu().numpy(), self._config.classes
        return [
            Pictured(
                "/".join(batch.ids[row]),
                self._pixels(batch.images[row]),
                classes,
                found[row],
                labels[row],
                self._thresholds,
            )
            for row in rows
        ]

    def _pixels(self, image: Tensor) -> NDArray[np.uint8]:
        """Undo the normalisation of an image."""
        mean, std = (torch.tensor(one)[:, None, None] for one in (self._config.mean, self._config.std))
        return (image * std + mean).mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
