"""The texts that a Grounding DINO is asked, and how what it answers to several of them becomes one answer."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tagmill.models.base import Boxes
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.prompts import Text, build

CLS, SEP, DOT, QUESTION = 101, 102, 1012, 1029
"""Token ids that part a text into blocks; the model's code in transformers has them as numbers."""


class Prompts:
    """Makes texts of prompts.

    `cut` gives the token ids of a word alone, without special tokens; `longest` is the model's text length,
    and `most` that of tags in one text, if it is bounded.
    """

    def __init__(self, cut: Callable[[str], list[int]], longest: int, most: int | None) -> None:
        self._cut, self._longest, self._most = cut, longest, most
        self._tokens: dict[str, list[int]] = {}

    def texts(self, prompt: Sequence[str]) -> list[Text]:
        """Make the texts of a prompt. Raises ValueError for a tag that has no tokens, or too many."""
        try:
            pieces = [self._pieces(tag) for tag in prompt]
            return build(pieces, self._longest, self._most, start=CLS, dot=DOT, end=SEP)
        except ValueError as error:
            raise ValueError(f"prompt {list(prompt)}: {error}") from error

    def _pieces(self, tag: str) -> list[int]:
        """Tokenize one tag alone; tokens that would end its block ("st. bernard") are left out."""
        if tag not in self._tokens:
            ids = self._cut(tag.lower())
            self._tokens[tag] = [i for i in ids if i not in (CLS, SEP, DOT, QUESTION)]
        return self._tokens[tag]


def check_vocabulary(ids: Sequence[int | None], folder: Path) -> None:
    """Raise ConfigError unless [CLS] [SEP] . ? have the ids that the network's code has as numbers."""
    if list(ids) != [CLS, SEP, DOT, QUESTION]:
        raise ConfigError(
            f"the tokenizer of {folder} has [CLS] [SEP] . ? at {list(ids)}; Grounding DINO needs them at "
            f"{[CLS, SEP, DOT, QUESTION]}, as bert-base-uncased has them"
        )


def join(parts: Sequence[Boxes]) -> Boxes:
    """Put the boxes of one image's texts together: by tag, falling score, corners."""
    tags = np.concatenate([np.zeros(0, np.int64), *(part.tags for part in parts)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in parts)])
    scores = np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)])
    order = np.lexsort((*boxes.T[::-1], -scores, tags))
    return Boxes(tags[order], boxes[order], scores[order])
