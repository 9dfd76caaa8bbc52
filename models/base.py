"""The Protocols that every model of the engine fits, and how a model is found by its name.

A model is constructed from the options in the config, cheaply: the constructor checks the options and
names a missing file, and reads no weights. `load()` reads them, once, in the process that predicts.
`prepare(image)` then runs in the threads that decode, and `predict` on batches of what it gave.
A user's own model needs no base class: any class of this shape, named in the config as
`package.module:Class`, is used in the same way as the built-in ones.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tagmill.models.local_copies import local_copy, local_options
from tagmill.tag_system.core import extras, plugins
from tagmill.tag_system.core.errors import ConfigError

Image: TypeAlias = NDArray[np.uint8]
"""Pixels of one image, RGB, shape (height, width, 3), upright: an EXIF orientation has been applied."""

Floats: TypeAlias = NDArray[np.float32]

Prepared: TypeAlias = Any
"""What a model's `prepare` made of one image; only its own `predict` reads it."""


@dataclass(frozen=True)
class Boxes:
    """What a localizer found in one image, in any order.

    Attributes:
        tags: int64 (n,), index into the image's prompt.
        boxes: float32 (n, 4), x1, y1, x2, y2 in pixels of the image.
        scores: float32 (n,) in 0..1.
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


class PixelModel(Model, Protocol):
    """A model that looks at images: each is prepared ahead, in a thread, and predicted in a batch."""

    def prepare(self, image: Image) -> Prepared:
        """Resize and normalise one image; called after `load`, from several threads at a time."""

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Say how wide and high, in pixels, an image of this size is once prepared; works before `load`.

        Images of one prepared size are predicted together. A model that leaves images the size that they have
        gets any sizes together. Part of the prepared image may be padding: a model may say by a method
        `unpadded_size_of`, of the same form, how much is not.
        """


class Tagger(PixelModel, Protocol):
    """Scores every class of a fixed list on whole images.

    It may also have `thresholds`, a score for each class above which the class counts as seen.
    """

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the scores; known before `load`, without weights."""

    def predict(self, batch: Sequence[Prepared]) -> list[Floats]:
        """Score every class of each image: float32 (len(classes),) in 0..1."""


@runtime_checkable
class PartialTagger(Tagger, Protocol):
    """A tagger that scores some of its classes at a lower cost than all of them; optional."""

    def predict_some(self, batch: Sequence[Prepared], places: Sequence[int]) -> list[Floats]:
        """Score the classes at some places of `classes` as among all: float32 (len(places),) in 0..1."""


class Localizer(PixelModel, Protocol):
    """Finds boxes for the tags that it is asked about."""

    @property
    def classes(self) -> Sequence[str] | None:
        """Names that can be asked, or None for any text; known before `load`, without weights."""

    def predict(self, batch: Sequence[Prepared], prompts: Sequence[Sequence[str]]) -> list[Boxes]:
        """Look in each image for the names of its own prompt; an empty prompt finds nothing.

        Boxes are in pixels of the image as it was before `prepare`.
        """


@runtime_checkable
class ReadingLocalizer(Localizer, Protocol):
    """A localizer that makes texts of prompts, and lets its batches be planned by them; optional."""

    def lengths_of(self, prompt: Sequence[str]) -> Sequence[int]:
        """Say how long each text is that a prompt makes, in tokens; called after `load`."""

    def read(self, prompts: Sequence[Sequence[str]], at_once: int) -> None:
        """Take note of the prompts of all images to come, a text as often as it comes, so that what depends
        on a text alone is computed once.

        `predict` then runs at most `at_once` pairs of an image and a text together.
        """


class Embedder(PixelModel, Protocol):
    """Embeds images, and names where it can, into one space of unit vectors."""

    def predict(self, batch: Sequence[Prepared]) -> Floats:
        """Embed each image: float32 (len(batch), dimension), rows of length 1."""

    def text(self, names: Sequence[str]) -> list[Floats | None]:
        """Embed each name: float32 (dimension,) of length 1, None for a name it cannot embed."""


class FeatureModel(PixelModel, Protocol):
    """Gives features of images for a tagger to be distilled from."""

    def image_features(self, batch: Sequence[Prepared]) -> Floats:
        """Give the features of each image, of any length: float32 (len(batch), dimension)."""


class Captioner(PixelModel, Protocol):
    """Writes one caption for each image."""

    def predict(self, batch: Sequence[Prepared]) -> list[str]:
        """Caption each image."""


@dataclass(frozen=True)
class Question:
    """Asks a verifier whether an image shows a tag.

    Attributes:
        tag: The tag.
        box: Where to look: x1, y1, x2, y2 in upright pixels of the image; None is the whole image.
    """

    tag: str
    box: tuple[float, float, float, float] | None = None


class Verifier(PixelModel, Protocol):
    """Says how likely it is that a tag is there, in an image or in a box of it."""

    @property
    def classes(self) -> Sequence[str] | None:
        """Tags that can be asked, or None for any text; known before `load`, without weights."""

    def predict(self, batch: Sequence[Prepared], questions: Sequence[Sequence[Question]]) -> list[Floats]:
        """Answer each image's own questions: float32 (len(its questions),) in 0..1, NaN for no answer."""


BUILT_IN = {
    "grounding-dino": "tagmill.models.grounding_dino:GroundingDino",
    "onnx": "tagmill.models.ram.onnx_tagger:OnnxTagger",
    "onnx-clip": "tagmill.models.onnx_clip:OnnxClip",
    "onnx-grounding-dino": "tagmill.models.onnx_grounding_dino:OnnxGroundingDino",
    "open-clip": "tagmill.models.open_clip:OpenClip",
    "ram": "tagmill.models.ram.tagger:RamTagger",
    "tag2text": "tagmill.models.ram.captioner:Tag2TextCaptioner",
}
"""Short names of the built-in models."""

IMPORTS = {
    "grounding-dino": ("torch", "torchvision.ops", "transformers.models.grounding_dino"),
    "onnx": ("onnxruntime",),
    "onnx-clip": ("onnxruntime", "tokenizers"),
    "onnx-grounding-dino": ("onnxruntime", "tokenizers"),
    "open-clip": ("torch", "open_clip"),
    "ram": ("torch", "timm"),
    "tag2text": ("torch", "timm"),
}
"""What the built-in models import that takes long: seconds, all of them without threads or CUDA."""


_DOWNLOAD = "`hf download OWNER/NAME --local-dir FOLDER` makes one"


def imports_of(name: str) -> Sequence[str]:
    """Name the modules that a model called `name` imports; none for a user's own, which may start threads."""
    return IMPORTS.get(name, ())


def create(name: str, options: Mapping[str, Any]) -> Any:
    """Construct the model called `name`: a short name or `package.module:Class`.

    Raises ConfigError if there is no such model, if its constructor refuses the options, or if what a
    built-in one imports is not installed.
    """
    lacks = extras.missing(module.partition(".")[0] for module in imports_of(name))
    if lacks:
        raise ConfigError(f"model {name!r}: {lacks}")
    if name in BUILT_IN:
        options = local_options(options)
    needs = " (the built-in models need: pip install 'tagmill[models]')"
    return plugins.create("model", name, options, BUILT_IN, needs)


def create_for_pixels(name: str, options: Mapping[str, Any]) -> Any:
    """Construct a `PixelModel`, see `create`. Raises ConfigError also for a class that lacks its methods."""
    model = create(name, options)
    missing = [method for method in ("prepare", "size_of") if not callable(getattr(model, method, None))]
    if missing:
        raise ConfigError(
            f"model {name!r} lacks the methods {', '.join(missing)}: a model prepares each image in the "
            'decode threads and predict takes what it gave; add "def prepare(self, image): return image" and '
            '"def size_of(self, width, height): return width, height" to keep predict as it is'
        )
    return model


def create_named(name: str | os.PathLike[str], options: Mapping[str, Any]) -> Any:
    """Construct a `PixelModel` as `create_for_pixels` does, or of the folder of a RAM, RAM++ or Tag2Text.

    A folder is the built-in "ram" with the option `path`, a file that ends in .onnx the built-in "onnx"; both
    may be urls.
    Raises ConfigError also for the file of a checkpoint, which says what to make of it.
    """
    text = os.fspath(name)
    if "://" in text:
        text = local_copy(text)
    elif ":" in text:
        return create_for_pixels(text, options)
    path = Path(text)
    if path.is_file() and path.suffix == ".onnx":
        return create_for_pixels("onnx", {"path": text, **options})
    if path.is_file():
        raise ConfigError(
            f"{text} is a file, not a model: `tagmill models convert` makes a folder of a published "
            "checkpoint, name that"
        )
    if path.name != text and not path.exists():
        raise ConfigError(f"there is no model folder {text}; of what is published, {_DOWNLOAD}")
    if path.is_dir() or (text not in BUILT_IN and path.name != text):
        return create_for_pixels("ram", {"path": text, **options})
    return create_for_pixels(text, options)


def create_tagger(name: str | os.PathLike[str], options: Mapping[str, Any]) -> Tagger:
    """Construct a `Tagger`, see `create_named`. Raises ConfigError also for a model that is not one."""
    tagger: Tagger = create_named(name, options)
    check_tagger(tagger)
    return tagger


def check_tagger(model: Any) -> None:
    """Raise ConfigError unless a model has what makes it a `Tagger`."""
    if getattr(model, "classes", None) is None:
        raise ConfigError(f"{type(model).__name__} is not a tagger: it has no list of classes")
    if not callable(getattr(model, "predict", None)):
        raise ConfigError(f"{type(model).__name__} is not a tagger: it has no method predict")
    limits = getattr(model, "thresholds", None)
    if limits is not None and len(limits) != len(model.classes):
        counts = f"{len(limits)} thresholds for {len(model.classes)} classes"
        raise ConfigError(f"{type(model).__name__} is not a tagger: it has {counts}")
