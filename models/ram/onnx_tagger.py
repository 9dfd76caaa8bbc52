"""RAM, RAM++ and Tag2Text as taggers without torch: the ONNX file of `tagmill models export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tagmill.models.base import Floats, Image
from tagmill.models.local_copies import OUTSIDE
from tagmill.models.onnx_session import open_session
from tagmill.models.pretrained import changed, digest
from tagmill.models.ram import preprocess
from tagmill.models.ram.config import METADATA, RamConfig
from tagmill.tag_system.core.config import check_values
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json


class OnnxTagger:
    """Scores all classes of an exported RAM, RAM++ or Tag2Text on the CPU; fits `Tagger`.

    `path`: a file that `tagmill models export MODEL FILE.onnx` wrote, which holds the classes, their
    thresholds and how images are prepared. It needs onnxruntime and no torch, and runs in as many threads as
    the engine grants a process.

    Raises ConfigError for a file that is missing, or that another program wrote.
    """

    version: ClassVar[int] = 1
    """Raised when the same file gives other scores."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ConfigError(f"there is no ONNX file {path}: `tagmill models export` writes one")
        self._session: Any = None
        self._config: RamConfig | None = None

    @property
    def path(self) -> Path:
        """The file that it reads."""
        return self._path

    @property
    def config(self) -> RamConfig:
        """What the file says of the model. Raises ConfigError if it says nothing."""
        if self._config is None:
            self._config = self._read(open_session(self._path))
        return self._config

    def _read(self, session: Any) -> RamConfig:
        held = session.get_modelmeta().custom_metadata_map.get(METADATA)
        if held is None:
            raise ConfigError(
                f"{self._path} does not say what its classes are: `tagmill models export` writes files that "
                "do; a graph of another program needs a class that runs it, such as those of "
                "docs/examples/onnx_models.py"
            )
        return check_values(str(self._path), parse_json(held), RamConfig)

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the scores."""
        return self.config.classes

    @property
    def thresholds(self) -> Sequence[float] | None:
        """The checkpoint's own score for each class, above which it counts as seen; None if it has none."""
        return self.config.thresholds

    def fingerprint(self) -> str:
        """Hash the file, and that of its weights if they lie beside it."""
        beside = self._path.with_name(self._path.name + OUTSIDE)
        return digest([self._path, *([beside] if beside.is_file() else [])], changed(OnnxTagger, {}))

    def load(self) -> None:
        """Open the graph."""
        self._session = open_session(self._path)
        self._config = self._read(self._session)

    def prepare(self, image: Image) -> Floats:
        """Resize and normalise one image."""
        return preprocess.prepare(image, self.config)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say the size of a prepared image: one square for all."""
        return self.config.image_size, self.config.image_size

    def predict(self, batch: Sequence[Floats]) -> list[Floats]:
        """Score every class of each image, as one batch: float32 (len(classes),) in 0..1.

        Raises FloatingPointError if the graph answers with NaN.
        """
        if not batch:
            return []
        (logits,) = self._session.run(None, {"images": np.stack(batch)})
        if np.isnan(logits).any():
            raise FloatingPointError(f"{self._path.name} gave NaN")
        # As 1 / (1 + exp(-x)), but without an overflow for large negative logits.
        scores = np.where(logits >= 0, 1.0, np.exp(np.minimum(logits, 0))) / (1.0 + np.exp(-np.abs(logits)))
        return list(scores.astype(np.float32))
