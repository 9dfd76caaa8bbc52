"""The Protocols that every model of the engine fits, and how a model is found by its name.

A model is constructed from the options in the config, cheaply: the constructor checks the options and
names a missing file, and reads no weights. `load()` reads them, once, in the process that predicts.
A user's own model needs no base class: any class of this shape, named in the config as
`package.module:Class`, is used in the same way as the built-in ones.
"""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tagmill.tag_system.errors import ConfigError

Image: TypeAlias = NDArray[np.uint8]
"""Pixels of one image, RGB, shape (height, width, 3), upright: an EXIF orientation has been applied."""

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Boxes:
    """What a localizer found in one image, in no particular order.

    `tags` (n,) int: index into the image's prompt; `boxes` (n, 4): x1, y1, x2, y2 in pixels of the
    image; `scores` (n,) in 0..1.
    """

    tags: NDArray[np.int64]
    boxes: Floats
    scores: Floats


class Model(Protocol):
    """What all models share."""

    def fingerprint(self) -> str:
        """Say what decides the model's output (weights, sizes, options); works before `load`."""

    def load(self) -> None:
        """Read the weights into memory or onto the device."""


class Tagger(Model, Protocol):
    """Scores every class of a fixed list on whole images."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the scores; known after `load`."""

    def predict(self, images: Sequence[Image]) -> list[Floats]:
        """Score every class of each image: float32 (len(classes),) in 0..1."""


class Localizer(Model, Protocol):
    """Finds boxes for the tags that it is asked about."""

    @property
    def classes(self) -> Sequence[str] | None:
        """Names that can be asked, or None for any text; known after `load`."""

    def predict(self, images: Sequence[Image], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        """Look in each image for the names of its own prompt; an empty prompt finds nothing."""


class Embedder(Model, Protocol):
    """Embeds images, and names where it can, into one space of unit vectors."""

    def predict(self, images: Sequence[Image]) -> Floats:
        """Embed each image: float32 (len(images), dimension), rows of length 1."""

    def text(self, names: Sequence[str]) -> list[Floats | None]:
        """Embed each name: float32 (dimension,) of length 1, None for a name it cannot embed."""


class FeatureModel(Model, Protocol):
    """Gives features of images for a tagger to be distilled from."""

    def image_features(self, images: Sequence[Image]) -> Floats:
        """Give the features of each image, of any length: float32 (len(images), dimension)."""


class Captioner(Model, Protocol):
    """Writes one caption for each image."""

    def predict(self, images: Sequence[Image]) -> list[str]:
        """Caption each image."""


BUILT_IN = {
    "grounding-dino": "tagmill.models.grounding_dino:GroundingDino",
    "open-clip": "tagmill.models.open_clip:OpenClip",
    "ram": "tagmill.models.ram.tagger:RamTagger",
    "tag2text": "tagmill.models.ram.captioner:Tag2TextCaptioner",
}
"""Short names of the built-in models."""


def create(name: str, options: Mapping[str, Any]) -> Any:
    """Construct the model called `name`: a short name or `package.module:Class`.

    Raises ConfigError if there is no such model, or if its constructor refuses the options.
    """
    path = BUILT_IN.get(name, name)
    module_name, _, class_name = path.partition(":")
    if not class_name:
        raise ConfigError(
            f"unknown model {name!r}: use one of {', '.join(sorted(BUILT_IN))} "
            "or your own class as package.module:Class"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"model {name!r}: cannot import {module_name} ({error}); install it or put its folder "
            "on PYTHONPATH (the built-in models need: pip install 'tagmill[models]')"
        ) from error
    factory = getattr(module, class_name, None)
    if factory is None:
        raise ConfigError(f"model {name!r}: module {module_name} has no {class_name}")
    try:
        return factory(**options)
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise ConfigError(f"model {name!r} with options {dict(options)}: {error}") from error


def file_digest(path: str | Path) -> str:
    """Hash the bytes of a file: sha256, hexadecimal. Raises FileNotFoundError."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
