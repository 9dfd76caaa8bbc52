"""Tag2Text, or a RAM with its text side, as a captioner: what an image's own tags guide it to say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from tagmill.models.base import Image, Prepared
from tagmill.models.pretrained import changed, check_dtype, digest, placed, require_files, resolve_device
from tagmill.models.ram import config as configs
from tagmill.models.ram import preprocess
from tagmill.models.ram.config import CONFIG, NEEDS, VOCAB, WEIGHTS
from tagmill.tag_system.core.errors import ConfigError

THRESHOLD = 0.68
"""Score above which a class becomes a tag, where the checkpoint has no thresholds of its own."""


class Tag2TextCaptioner:
    """Writes one caption an image, from the image and the tags found in it; fits `Captioner`.

    `path`: a folder with config.json, model.safetensors and vocab.txt. `beams`: 1 searches greedily.
    `min_length` and `max_length` count word pieces, the four of the prompt included. `length`: see
    `beam_search.Search`. `threshold`: one score above which any class becomes a tag; None takes the
    checkpoint's own. `dtype`: the format to compute in.

    Raises ConfigError for options out of range and for a folder that lacks a file or has no text side.
    """

    version: ClassVar[int] = 1
    """Raised when the same files and options give other captions."""

    def __init__(
        self,
        path: str,
        *,
        device: str = "auto",
        dtype: str = "float32",
        beams: int = 3,
        min_length: int = 10,
        max_length: int = 30,
        repetition_penalty: float = 1.0,
        length: Literal["generated", "all"] = "generated",
        threshold: float | None = None,
    ) -> None:
        check_dtype(dtype)
        if beams < 1 or not 0 <= min_length <= max_length or max_length < 5 or not repetition_penalty > 0:
            raise ConfigError(
                "beams must be at least 1, max_length at least 5 and at least min_length, "
                "and repetition_penalty over 0"
            )
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold must be from 0 to 1, got {threshold}")
        if length not in ("generated", "all"):
            raise ConfigError(f"length must be generated or all, got {length!r}")
        self._folder, self._device, self._dtype, self._threshold = Path(path), device, dtype, threshold
        self._search: dict[str, Any] = {
            "beams": beams,
            "min_length": min_length,
            "max_length": max_length,
            "repetition_penalty": repetition_penalty,
            "length": length,
        }
        require_files(self._folder, (*NEEDS, (VOCAB,)))
        self._config = configs.read(self._folder)
        if self._config.text is None:
            raise ConfigError(f"{self._folder} is a model of kind {self._config.kind} without a text side")
        if max_length > self._config.text.positions:
            raise ConfigError(f"max_length must be at most {self._config.text.positions}, got {max_length}")
        if 2 * beams > self._config.text.tokens:  # each beam goes on by one of the two best words, or ends
            raise ConfigError(f"beams must be at most {self._config.text.tokens // 2}, got {beams}")
        self._fingerprint: str | None = None
        self._model: Any = None

    def fingerprint(self) -> str:
        """Hash the folder's files and the options; the device and the batch size are not part of it."""
        if self._fingerprint is None:
            options = {**self._search, "dtype": self._dtype, "threshold": self._threshold}
            files = [self._folder / name for name in (CONFIG, WEIGHTS, VOCAB)]
            self._fingerprint = digest(files, changed(Tag2TextCaptioner, options))
        return self._fingerprint

    def load(self) -> None:
        """Read weights and word pieces. Raises ConfigError if they do not fit the config."""
        import torch

        from tagmill.models.ram import store
        from tagmill.models.ram.beam_search import Search
        from tagmill.models.ram.word_pieces import WordPieces

        self._pieces = WordPieces(self._folder / VOCAB)
        if self._pieces.count != getattr(self._config.text, "tokens", None):
            raise ConfigError(f"{self._folder / VOCAB} has another number of word pieces than the config")
        self._how = Search(**self._search)
        self._place = resolve_device(self._device)
        self._model = store.load(self._folder).to(self._place, getattr(torch, self._dtype))

    def prepare(self, image: Image) -> Prepared:
        """Resize and normalise one image: float32 (3, size, size)."""
        return preprocess.prepare(image, self._config)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of a prepared image: one square for all; known at once."""
        return self._config.image_size, self._config.image_size

    def predict(self, batch: Sequence[Prepared]) -> list[str]:
        """Caption each image, as one batch.

        Raises FloatingPointError if the model answers with NaN (float16 can overflow).
        """
        import torch

        if not batch:
            return []
        pixels = placed(batch, self._place, getattr(torch, self._dtype))
        with torch.inference_mode():
            tokens = self._model.encode(pixels)
            scores = self._model.score(tokens).float().sigmoid().cpu().numpy()
            if np.isnan(scores).any():
                raise FloatingPointError("the model gave NaN; float16 can overflow, try bfloat16 or float32")
            tags = [self._pieces.tags(self._tags(row)) for row in scores]
            ids = torch.tensor(tags, device=self._place)
            read = self._model.text.read(ids, ids != self._pieces.padding, tokens)
            found = self._model.text.write(read, self._pieces.prompt, self._pieces.end, self._how)
        return [self._pieces.text(one.ids) for one in found]

    def _tags(self, scores: Any) -> list[str]:
        """Name the classes whose score is above their threshold, but for those that stay silent."""
        own = (
            THRESHOLD if self._config.thresholds is None else np.asarray(self._config.thresholds, np.float32)
        )
        seen = np.flatnonzero(scores > (own if self._threshold is None else self._threshold))
        return [self._config.classes[i] for i in seen if i not in self._config.silent]
