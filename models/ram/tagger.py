"""RAM, RAM++ and Tag2Text as taggers: a folder of our format, images in, scores of its classes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tagmill.models.base import Floats, Image, Prepared
from tagmill.models.open_clip import OpenClip
from tagmill.models.pretrained import changed, check_dtype, digest, placed, require_files, resolve_device
from tagmill.models.ram import config as configs
from tagmill.models.ram import preprocess
from tagmill.models.ram.config import CONFIG, NEEDS, WEIGHTS, RamConfig
from tagmill.tag_system.core.errors import ConfigError


class RamTagger:
    """Scores all classes of a RAM, RAM++ or Tag2Text model; fits `Tagger`.

    `path`: a folder with config.json and model.safetensors (see `store`). `device`: "auto", "cpu",
    "cuda", ... `dtype`: the format to compute in; scores are float32 always.

    `shortlist`: score only so many classes of each image, those whose names are most like it to the CLIP that
    `clip` gives the options of (an `OpenClip`); both or none. All other classes get 0, which then says that
    nobody looked and not that nothing is there: in a run they count as classes under the floor, which propose
    no tag, and which contradict one on its region.

    Raises ConfigError for options out of range, a folder that lacks a file, or a config that does
    not hold.
    """

    version: ClassVar[int] = 1
    """Raised when the same files and options give other scores."""

    def __init__(
        self,
        path: str,
        *,
        device: str = "auto",
        dtype: str = "float32",
        shortlist: int | None = None,
        clip: Mapping[str, Any] | None = None,
    ) -> None:
        check_dtype(dtype)
        if (shortlist is None) != (clip is None):
            raise ConfigError("shortlist needs clip, the options of an open-clip, and clip needs shortlist")
        if shortlist is not None and (not isinstance(shortlist, int) or shortlist < 1):
            raise ConfigError(f"shortlist must be a whole number from 1 on, got {shortlist}")
        self._folder, self._device, self._dtype = Path(path), device, dtype
        require_files(self._folder, NEEDS)
        self._config = configs.read(self._folder)
        self._count = shortlist or 0
        self._clip = None if clip is None else OpenClip(**{"device": device, **clip})
        self._shortlist: Any = None
        self._fingerprint: str | None = None
        self._model: Any = None
        self._asked: tuple[tuple[int, ...], Any] | None = None

    @property
    def folder(self) -> Path:
        """The folder that it reads."""
        return self._folder

    @property
    def config(self) -> RamConfig:
        """What the folder's config.json says; known at once."""
        return self._config

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the scores; known at once."""
        return self._config.classes

    @property
    def thresholds(self) -> Sequence[float] | None:
        """The checkpoint's own score for each class, above which it counts as seen; None if it has none."""
        return self._config.thresholds

    def fingerprint(self) -> str:
        """Hash the folder's two files and the options; the device and the batch size are not part of it."""
        if self._fingerprint is None:
            files = [self._folder / CONFIG, self._folder / WEIGHTS]
            clip = None if self._clip is None else self._clip.fingerprint()
            options = {"dtype": self._dtype, "shortlist": self._count or None, "clip": clip}
            self._fingerprint = digest(files, changed(RamTagger, options))
        return self._fingerprint

    def load(self) -> None:
        """Read the weights onto the device. Raises ConfigError if they do not fit the config."""
        import torch

        from tagmill.models.ram import store

        self._place = resolve_device(self._device)
        self._model = store.load(self._folder).to(self._place, getattr(torch, self._dtype))
        if self._clip is not None:
            from tagmill.models.ram.shortlist import Shortlist

            self._clip.load()
            self._shortlist = Shortlist(self.classes, self._count, self._clip)

    def prepare(self, image: Image) -> Prepared:
        """Resize and normalise one image, for the CLIP of a shortlist too."""
        clip = None if self._clip is None else self._clip.prepare(image)
        return _Prepared(preprocess.prepare(image, self._config), clip)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of a prepared image: one square for all; known at once."""
        return self._config.image_size, self._config.image_size

    def predict(self, batch: Sequence[Prepared]) -> list[Floats]:
        """Score every class of each image, as one batch: float32 (len(classes),) in 0..1.

        Raises FloatingPointError if the model answers with NaN (float16 can overflow).
        """
        if self._shortlist is None or not batch:
            return self._scores(batch, None)
        from tagmill.models.ram.shortlist import score_some

        chosen = self._shortlist.choose([one.clip for one in batch])
        return self._run(batch, lambda tokens: score_some(self._model, tokens, chosen))

    def predict_some(self, batch: Sequence[Prepared], places: Sequence[int]) -> list[Floats]:
        """Score the classes at some places of `classes` as among all: float32 (len(places),) in 0..1.

        What the others would cost is saved, unless a shortlist chooses for each image. Raises
        FloatingPointError as `predict` does.
        """
        import torch

        if self._shortlist is not None:
            return [scores[list(places)] for scores in self.predict(batch)]
        if self._asked is None or self._asked[0] != tuple(places):
            chosen = torch.tensor(places, device=self._place)
            labels = chosen if self._config.kind == "tag2text" else self._model.labels[chosen]
            self._asked = tuple(places), labels
        return self._scores(batch, self._asked[1])

    def predict_labels(self, batch: Sequence[Prepared], labels: Any) -> list[Floats]:
        """Score other classes, by label embeddings: float32 (classes,) in 0..1, whatever a shortlist says.

        `labels` is a tensor [classes, descriptions, dimension]; a Tag2Text has no such space. Raises
        FloatingPointError as `predict` does.
        """
        return self._scores(batch, labels.to(self._model.label_embed))

    def _scores(self, batch: Sequence[Prepared], asked: Any) -> list[Floats]:
        return self._run(batch, lambda tokens: self._model.score(tokens, asked).float().sigmoid())

    def _run(self, batch: Sequence[Prepared], score: Callable[[Any], Any]) -> list[Floats]:
        """Encode images as one batch, and score their tokens: [B, some classes] in 0..1."""
        import torch

        if not batch:
            return []
        pixels = placed([one.pixels for one in batch], self._place, getattr(torch, self._dtype))
        with torch.inference_mode():
            tokens = self._model.encode(pixels)
            scores = np.asarray(score(tokens).cpu().numpy(), np.float32)
        if np.isnan(scores).any():
            raise FloatingPointError("RAM gave NaN; float16 can overflow, try bfloat16 or float32")
        return list(scores)


@dataclass(frozen=True)
class _Prepared:
    """One image for the model, float32 (3, size, size), and for the CLIP of a shortlist if there is one."""

    pixels: Floats
    clip: Prepared
