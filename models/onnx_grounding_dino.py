"""Grounding DINO as a localizer without torch: the folder that `tagmill models export` makes of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydantic import Field

from tagmill.models import guard
from tagmill.models.base import Boxes, Floats, Image
from tagmill.models.grounding_dino_boxes import check_options, decode
from tagmill.models.grounding_dino_images import Picture, enlarged, size_within
from tagmill.models.grounding_dino_texts import CLS, DOT, QUESTION, SEP, Prompts, check_vocabulary, join
from tagmill.models.onnx_session import open_session, open_tokenizer, read_config
from tagmill.models.pretrained import changed, digest, require_files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.prompts import Text

CONFIG, TOKENIZER, GRAPH = "config.json", "tokenizer.json", "pairs.onnx"
FILES = (CONFIG, TOKENIZER, GRAPH)

Colour = tuple[float, float, float]
Job: TypeAlias = tuple[int, Text]
"""The index of an image, and one of the texts that it is asked."""


class DinoConfig(Config):
    """What the folder of an exported Grounding DINO says of itself: `config.json`.

    `canvas`: the side in pixels of the square on which every image lies, top left. `shortest` and `longest`:
    the sides to which images are resized. `text`: most tokens of a text.
    """

    kind: Literal["grounding-dino"]
    canvas: int = Field(ge=1)
    shortest: int = Field(ge=1)
    longest: int = Field(ge=1)
    text: int = Field(ge=3)
    mean: Colour
    std: Colour


class OnnxGroundingDino:
    """An exported Grounding DINO, which finds the boxes of tags on the CPU; fits `Localizer`.

    `path`: a folder that `tagmill models export` made. `box_floor`, `span`, `nms_iou` and `tags_a_text` are
    those of `GroundingDino`. Every image lies on a canvas of one size, so that all fill their batches: its
    results are those of `GroundingDino` with a `pad_to` of that size, but for the last digits. It needs
    onnxruntime and tokenizers, and no torch. Each further text of an image costs the whole network again.

    Raises ConfigError for options out of range and for files that are missing.
    """

    classes: Sequence[str] | None = None
    version: ClassVar[int] = 1
    """Raised when the same files and options give other boxes."""

    def __init__(
        self,
        path: str,
        *,
        box_floor: float = 0.05,
        span: str = "max",
        nms_iou: float = 0.5,
        tags_a_text: int | None = None,
    ) -> None:
        check_options(box_floor, span, nms_iou, tags_a_text)
        self._options: dict[str, Any] = {
            "box_floor": box_floor,
            "span": span,
            "nms_iou": nms_iou,
            "tags_a_text": tags_a_text,
        }
        self._folder = Path(path)
        require_files(self._folder, [(name,) for name in FILES])
        self._config = read_config(self._folder / CONFIG, DinoConfig)
        self._session: Any = None
        self._at_once = 1

    def fingerprint(self) -> str:
        """Hash the folder's files and the options."""
        return digest([self._folder / name for name in FILES], changed(OnnxGroundingDino, self._options))

    def load(self) -> None:
        """Open the graph and the tokenizer. Raises ConfigError for a file that is none."""
        tokenizer = open_tokenizer(self._folder / TOKENIZER)
        check_vocabulary([tokenizer.token_to_id(word) for word in ("[CLS]", "[SEP]", ".", "?")], self._folder)
        self._prompts = Prompts(
            lambda word: tokenizer.encode(word, add_special_tokens=False).ids,
            self._config.text,
            self._options["tags_a_text"],
        )
        self._session = open_session(self._folder / GRAPH)

    def prepare(self, image: Image) -> Picture:
        """Resize and normalise one image, and lay it on the canvas."""
        config, (height, width, _) = self._config, image.shape
        wide, high = self.unpadded_size_of(width, height)
        large = enlarged(image, config.longest)
        if large.shape[:2] != (high, wide):
            large = np.asarray(PIL.Image.fromarray(large).resize((wide, high), PIL.Image.Resampling.BILINEAR))
        mean, std = (255 * np.asarray(values, np.float32) for values in (config.mean, config.std))
        pixels = np.zeros((3, config.canvas, config.canvas), np.float32)
        pixels[:, :high, :wide] = ((large.astype(np.float32) - mean) / std).transpose(2, 0, 1)
        return Picture(pixels, (high, wide), (height, width))

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of a prepared image: the canvas, one for all."""
        return self._config.canvas, self._config.canvas

    def unpadded_size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of such an image resized alone."""
        return size_within(width, height, self._config.shortest, self._config.longest)

    def predict(self, batch: Sequence[Picture], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        """Find the tags of each image's own prompt in it; see `GroundingDino.predict`.

        Raises ValueError for a tag without any token or with more than one text can hold, and
        FloatingPointError if the graph answers with NaN.
        """
        if len(batch) != len(prompts):
            raise ValueError(f"{len(batch)} images but {len(prompts)} prompts")
        jobs = [(place, text) for place, prompt in enumerate(prompts) for text in self._prompts.texts(prompt)]
        found: list[list[Boxes]] = [[] for _ in batch]

        def run(some: Sequence[Job]) -> list[Boxes]:
            images = [batch[place] for place, _ in some]
            answers = zip(*self._run(images, [text for _, text in some]), strict=True)
            floor, span, iou = (self._options[name] for name in ("box_floor", "span", "nms_iou"))
            return [
                decode(text, scores, boxes, image.shape, floor, span, iou)
                for image, (_, text), (scores, boxes) in zip(images, some, answers, strict=True)
            ]

        answers = guard.in_batches(run, jobs, max(self._at_once, len(batch)))
        for (place, _), boxes in zip(jobs, answers, strict=True):
            found[place].append(boxes)
        return [join(parts) for parts in found]

    def lengths_of(self, prompt: Sequence[str]) -> list[int]:
        """Count the tokens of each text that a prompt is asked in. Raises ValueError as `predict` does."""
        return [len(text.ids) for text in self._prompts.texts(prompt)]

    def read(self, prompts: Sequence[Sequence[str]], at_once: int) -> None:
        """Take note of how many pairs may run together; see `ReadingLocalizer`."""
        self._at_once = at_once

    def _run(self, images: Sequence[Picture], texts: Sequence[Text]) -> tuple[Floats, Floats]:
        """Ask each image its text: scores (n, queries, tokens), boxes (n, queries, 4)."""
        ids = np.zeros((len(texts), max(len(text.ids) for text in texts)), np.int64)
        inside = np.zeros((len(images), self._config.canvas, self._config.canvas), np.int64)
        for row, (image, text) in enumerate(zip(images, texts, strict=True)):
            high, wide = image.inside
            inside[row, :high, :wide] = 1
            ids[row, : len(text.ids)] = text.ids
        lengths = np.asarray([len(text.ids) for text in texts])
        blocks, positions = attention_blocks(ids)
        scores, boxes = self._session.run(
            None,
            {
                "pixels": np.stack([image.pixels for image in images]),
                "inside": inside,
                "ids": ids,
                "words": (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64),
                "blocks": blocks,
                "positions": positions,
            },
        )
        if np.isnan(scores).any() or np.isnan(boxes).any():
            raise FloatingPointError("Grounding DINO gave NaN")
        return scores, boxes


def attention_blocks(ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Say which tokens of a text see each other, and the place of each in its block.

    A block is what a dot, a question mark or the like closes, with that: the words of one tag. Other tokens
    see themselves. transformers computes this inside of the network, by operations that ONNX does not have.

    Args:
        ids: Token ids, (texts, tokens), 0 for padding.

    Returns:
        Which see each other, (texts, tokens, tokens), and places, (texts, tokens).
    """
    count = ids.shape[1]
    places = np.arange(count)
    closing = np.isin(ids, (CLS, SEP, DOT, QUESTION))
    # The next closing token at or after each place, and the last one before it.
    following = np.minimum.accumulate(np.where(closing, places, count)[:, ::-1], axis=1)[:, ::-1]
    latest = np.maximum.accumulate(np.where(closing, places, -1), axis=1)
    before = np.concatenate([np.full((len(ids), 1), -1), latest[:, :-1]], axis=1)
    within = (following > 0) & (following < count - 1)
    same = (following[:, :, None] == following[:, None, :]) & within[:, None, :]
    return same | np.eye(count, dtype=bool), np.where(within, places - before - 1, 0)
