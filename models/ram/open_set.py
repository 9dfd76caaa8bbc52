"""An ONNX file whose label embeddings are an input: what it is told by, and what it remembers of its own."""

import base64
from typing import Any

import numpy as np

from tagmill.models.base import Floats
from tagmill.models.ram.config import RamConfig

IMAGES, LABELS, LOGITS = "images", "labels", "logits"
"""Names of the inputs and the output of an exported tagger."""

MEANS = "tagmill_label_means"
"""Name of the metadata that holds the own classes' embeddings, by which those of another CLIP are told."""


def takes_labels(session: Any) -> bool:
    """Tell whether an opened file was exported with `--open-set`."""
    return any(one.name == LABELS for one in session.get_overridable_initializers())


def pack(means: Floats) -> str:
    """Write the mean embedding (classes, dimension) of each class as text, in float16."""
    return base64.b64encode(means.astype("<f2").tobytes()).decode()


def unpack(text: str, config: RamConfig) -> Floats:
    """Read what `pack` wrote."""
    numbers = np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)
    return numbers.reshape(len(config.classes), config.dimension)
