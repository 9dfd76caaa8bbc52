"""RAM, RAM++ and Tag2Text as taggers without torch: the ONNX file of `tagmill models export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tagmill.models.base import Floats, Image
from tagmill.models.local_copies import OUTSIDE
from tagmill.models.onnx_session import open_session
from tagmill.models.pretrained import changed, digest
from tagmill.models.ram import label_files, open_set, preprocess
from tagmill.models.ram.config import METADATA, RamConfig
from tagmill.tag_system.core.config import check_values
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json


class OnnxTagger:
    """Scores all classes of an exported RAM, RAM++ or Tag2Text on the CPU; fits `Tagger`.

    `path`: a file that `tagmill models export MODEL FILE.onnx` wrote, which holds the classes, their
    thresholds and how images are prepared. `labels`: a file of `tagmill vocab embed`, whose tags are then the
    classes, without thresholds; the file must have been exported with `--open-set`. It needs onnxruntime and
    no torch, and runs in as many threads as the engine grants a process.

    Raises ConfigError for a file that is missing, or that another program wrote, and for labels that do not
    fit it.
    """

    version: ClassVar[int] = 1
    """Raised when the same file gives other scores."""

    def __init__(self, path: str, *, labels: str | None = None) -> None:
        self._path = Path(path)
        if not self._path.is_file():
            raise ConfigError(f"there is no ONNX file {path}: `tagmill models export` writes one")
        self._labels = None if labels is None else label_files.read(Path(labels))
        self._session: Any = None
        self._config: RamConfig | None = None

    @property
    def path(self) -> Path:
        """The file that it reads."""
        return self._path

    @property
    def config(self) -> RamConfig:
        """What the file, with the labels, says of the model. Raises ConfigError if it says nothing."""
        if self._config is None:
            self._config = self._read(open_session(self._path))
        return self._config

    def _read(self, session: Any) -> RamConfig:
        said = session.get_modelmeta().custom_metadata_map
        held = said.get(METADATA)
        if held is None:
            raise ConfigError(
                f"{self._path} does not say what its classes are: `tagmill models export` writes files that "
                "do; a graph of another program needs a class that runs it, such as those of "
                "docs/examples/onnx_models.py"
            )
        config = check_values(str(self._path), parse_json(held), RamConfig)
        if self._labels is None:
            return config
        if not open_set.takes_labels(session):
            raise ConfigError(
                f"{self._path} takes no labels: write it with `tagmill models export --open-set`, or leave "
                "the option labels out"
            )
        taken = label_files.relabelled(config, self._labels, self._path)
        means = open_set.unpack(said[open_set.MEANS], config)
        label_files.check_clip(config.classes, means, self._labels, self._path)
        return taken

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the scores."""
        return self.config.classes

    @property
    def thresholds(self) -> Sequence[float] | None:
        """The checkpoint's own score for each class, above which it counts as seen; None if it has none."""
        return self.config.thresholds

    def fingerprint(self) -> str:
        """Hash the file, that of its weights if they lie beside it, and the labels if there are any."""
        beside = self._path.with_name(self._path.name + OUTSIDE)
        labels = None if self._labels is None else self._labels.sha256
        return digest(
            [self._path, *([beside] if beside.is_file() else [])], changed(OnnxTagger, {"labels": labels})
        )

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
        given = {open_set.IMAGES: np.stack(batch)}
        if self._labels is not None:
            given[open_set.LABELS] = self._labels.by_class
        (logits,) = self._session.run(None, given)
        if np.isnan(logits).any():
            raise FloatingPointError(f"{self._path.name} gave NaN")
        return list(sigmoid(logits))


def sigmoid(logits: Floats) -> Floats:
    """Give 1 / (1 + exp(-x)) as float32, without an overflow for large negative logits."""
    scores = np.where(logits >= 0, 1.0, np.exp(np.minimum(logits, 0))) / (1.0 + np.exp(-np.abs(logits)))
    return scores.astype(np.float32)
