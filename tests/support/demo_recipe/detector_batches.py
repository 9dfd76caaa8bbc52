"""What the demo world's detector is asked in one step of training: scenes, prompts, true boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from demo_recipe.detector_loss import Targets
from demo_recipe.scenes import SceneSet
from tagmill.models.grounding_dino_texts import CLS, DOT, SEP
from tagmill.tag_system.prompts import Text, build

TEXT_LENGTH = 64
"""Most tokens of a text."""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows of the scenes (those from the number of scenes on are mirrored), texts (n, t), and the truth."""

    rows: NDArray[np.int64]
    ids: Tensor
    targets: Targets


@dataclass(frozen=True)
class Prompts:
    """How prompts are drawn.

    `sizes`: fewest and most tags; a wrong tag is of the same group as a true one with the probability
    `same_group`; each true tag is left out with the probability `left_out`.
    """

    sizes: tuple[int, int]
    same_group: float
    left_out: float

    def draw(self, labels: Labels, groups: Labels, rng: Generator) -> Labels:
        """Draw the labels to ask about a scene, in random order."""
        true = np.unique(labels)
        asked = true[rng.random(len(true)) >= self.left_out]
        wrong = np.setdiff1d(np.arange(len(groups)), true)
        alike = np.isin(groups[wrong], groups[true])
        chances = self.same_group * alike / max(1, alike.sum()) + (1 - self.same_group) / len(wrong)
        size = int(rng.integers(self.sizes[0], self.sizes[1] + 1)) - len(asked)
        drawn = rng.choice(wrong, min(max(0, size), len(wrong)), replace=False, p=chances / chances.sum())
        return rng.permutation(np.concatenate([asked, drawn]))


class Batches:
    """The batches of a training, each drawn by its number alone; all scenes come before one comes again."""

    def __init__(self, data: SceneSet, tokenizer: Any, prompts: Prompts, batch: int, seed: int) -> None:
        self._data, self._prompts, self._batch, self._seed = data, prompts, batch, seed
        self._pieces = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in data.names]

    def draw(self, step: int) -> Batch:
        """Draw the batch of a step."""
        rng = np.random.default_rng((self._seed, 1, step))
        rows = self._rows(step)
        count = len(self._data.images)
        labels = [self._data.labels[row % count] for row in rows]
        prompts = [self._prompts.draw(label, self._data.groups, rng) for label in labels]
        boxes = [self._boxes(row) for row in rows]
        return Batch(rows, *self._truth(prompts, labels, boxes))

    def _rows(self, step: int) -> NDArray[np.int64]:
        rows = 2 * len(self._data.images)
        epoch, place = divmod(step, max(1, rows // self._batch))
        order = np.random.default_rng((self._seed, 0, epoch)).permutation(rows)
        return order[place * self._batch :][: self._batch]

    def _boxes(self, row: int) -> NDArray[np.float32]:
        """Boxes (k, 4) of a row: centre and size as fractions of the image."""
        count, height, width, _ = self._data.images.shape
        x1, y1, x2, y2 = (self._data.boxes[row % count] / [width, height, width, height]).T
        if row >= count:
            x1, x2 = 1 - x2, 1 - x1
        return np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1).astype(np.float32)

    def _truth(
        self, prompts: Sequence[Labels], labels: Sequence[Labels], boxes: Sequence[NDArray[np.float32]]
    ) -> tuple[Tensor, Targets]:
        """Give token ids (n, t), and the boxes of those labels that are asked."""
        texts = [self._text(prompt) for prompt in prompts]
        asked = [np.isin(label, prompt) for label, prompt in zip(labels, prompts, strict=True)]
        length, most = max(len(text.ids) for text in texts), max(1, *(int(a.sum()) for a in asked))
        ids = torch.zeros(len(texts), length, dtype=torch.long)
        targets = Targets(
            boxes=torch.zeros(len(texts), most, 4),
            present=torch.zeros(len(texts), most, dtype=torch.bool),
            tokens=torch.zeros(len(texts), most, length, dtype=torch.bool),
            text=torch.zeros(len(texts), length, dtype=torch.bool),
        )
        for i, text in enumerate(texts):
            ids[i, : len(text.ids)] = torch.tensor(text.ids)
            targets.text[i, : len(text.ids)] = True
            tag_of_token = prompts[i][text.owners]
            for k, box in enumerate(np.flatnonzero(asked[i])):
                targets.boxes[i, k] = torch.from_numpy(boxes[i][box])
                targets.present[i, k] = True
                places = np.array(text.positions)[tag_of_token == labels[i][box]]
                targets.tokens[i, k, places] = True
        return ids, targets

    def _text(self, prompt: Labels) -> Text:
        (text,) = build([self._pieces[label] for label in prompt], TEXT_LENGTH, start=CLS, dot=DOT, end=SEP)
        return text
