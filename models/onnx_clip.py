"""CLIP as an embedder without torch: the folder that `tagmill models export` makes of an open_clip."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tagmill.models import clip_images
from tagmill.models.base import Floats, Image
from tagmill.models.clip_images import ClipConfig, check_fit
from tagmill.models.clip_names import EmbeddedNames, portions, unit
from tagmill.models.onnx_session import open_session, open_tokenizer, read_config
from tagmill.models.pretrained import changed, digest, require_files

CONFIG, TOKENIZER, IMAGES, TEXTS = "config.json", "tokenizer.json", "images.onnx", "texts.onnx"
FILES = (CONFIG, TOKENIZER, IMAGES, TEXTS)


class OnnxClip:
    """An exported CLIP, which embeds images and names on the CPU; fits `Embedder` and `FeatureModel`.

    `path`: a folder that `tagmill models export` made. `template` and `fit` are those of `OpenClip`, whose
    vectors these are but for the last digits. It needs onnxruntime and tokenizers, and no torch. Letters that
    a wrong encoding broke are not mended in names, as open_clip would.

    Raises ConfigError for options out of range and for files that are missing.
    """

    version: ClassVar[int] = 1
    """Raised when the same files and options give other vectors."""

    def __init__(self, path: str, *, template: str = "a photo of a {}.", fit: str | None = "pad") -> None:
        check_fit(fit)
        self._folder = Path(path)
        require_files(self._folder, [(name,) for name in FILES])
        self._template, self._fit = template, fit
        self._config = read_config(self._folder / CONFIG, ClipConfig)
        self._names = EmbeddedNames(template, self.sentences)
        self._images: Any = None
        self._texts: Any = None
        self._tokenizer: Any = None

    def fingerprint(self) -> str:
        """Hash the folder's files and the options."""
        options = {"template": self._template, "fit": self._fit}
        return digest([self._folder / name for name in FILES], changed(OnnxClip, options))

    def load(self) -> None:
        """Open both graphs and the tokenizer. Raises ConfigError for a file that is none."""
        self._images = open_session(self._folder / IMAGES)
        self._texts = open_session(self._folder / TEXTS)
        self._tokenizer = open_tokenizer(self._folder / TOKENIZER)

    def prepare(self, image: Image) -> Floats:
        """Resize and normalise one image: float32 (3, height, width)."""
        return clip_images.prepare(image, self._config, self._fit)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of a prepared image, the same for all."""
        return self._config.width, self._config.height

    def predict(self, batch: Sequence[Floats]) -> Floats:
        """Embed the images as one batch: float32 (len(batch), dimension), rows of length 1."""
        return unit(self.image_features(batch))

    def image_features(self, batch: Sequence[Floats]) -> Floats:
        """Give the images' features as CLIP makes them, of any length: float32 (len(batch), dimension)."""
        if not batch:
            return np.zeros((0, self._images.get_outputs()[0].shape[1]), np.float32)
        (features,) = self._images.run(None, {"images": np.stack(batch)})
        return _finite(features)

    def text(self, names: Sequence[str]) -> list[Floats]:
        """Embed each name in the template: float32 (dimension,) of length 1; computed once a name.

        A sentence over the model's context (77 tokens for most) is cut by its tokenizer.
        """
        return self._names.vectors(names)

    def sentences(self, texts: Sequence[str]) -> Floats:
        """Embed texts as they are, at least one: float32 (len(texts), dimension), rows of length 1."""
        parts = []
        for some in portions(texts):
            ids = tokens(self._tokenizer, some, lower=self._config.lower)
            (features,) = self._texts.run(None, {"ids": ids})
            parts.append(unit(_finite(features)))
        return np.concatenate(parts)


def tokens(tokenizer: Any, texts: Sequence[str], *, lower: bool) -> Any:
    """Cut texts into the ids of their tokens, filled up to the model's context: int64 (texts, context)."""
    cleaned = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
    # One by one: a batch would start threads, which a worker that is a fork must not find.
    rows = [tokenizer.encode(text.lower() if lower else text).ids for text in cleaned]
    return np.asarray(rows, dtype=np.int64)


def _finite(vectors: Floats) -> Floats:
    if np.isnan(vectors).any():
        raise FloatingPointError("CLIP gave NaN")
    return vectors
