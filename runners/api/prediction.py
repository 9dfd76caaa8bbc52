"""Models, and the tags that they give single images, for callers in Python."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image as pillow

from tagmill.models.base import check_tagger, create_named
from tagmill.pipeline.study import prediction
from tagmill.pipeline.study.asking import TagList
from tagmill.pipeline.study.prediction import ImageBatch, Prediction
from tagmill.runners.api import html
from tagmill.tag_system.core import pixels
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary

ImageLike: TypeAlias = str | os.PathLike[str] | pillow.Image | NDArray[np.uint8]
"""A file, a PIL image, or pixels: uint8 (height, width), (height, width, 3) or (height, width, 4)."""


SHOWN = 20
"""Predictions of a list that a notebook shows."""


class ImagePrediction(Prediction):
    """The tags of one image, the highest score first."""

    def __repr__(self) -> str:
        tags = ", ".join(f"{tag['tag']} {tag['score']:.2f}" for tag in self.tags)
        return f"<prediction {self.path}: {tags or 'no tags'}>"

    def _repr_html_(self) -> str:
        tags = html.table(self.tags, html.PREDICTION_COLUMNS) if self.tags else html.note("no tags")
        return html.heading(str(self.path)) + html.picture(pillow.fromarray(self.pixels)) + tags


class Predictions(list[ImagePrediction]):
    """Predictions in the order of their images."""

    def _repr_html_(self) -> str:
        more = len(self) - SHOWN
        shown = "".join(one._repr_html_() for one in self[:SHOWN])
        return shown + (html.note(f"and {more:,} more") if more > 0 else "")


def load_model(name: str | os.PathLike[str], /, **options: Any) -> Any:
    """Make a model and read its weights.

    Args:
        name: A built-in model ("ram", "tag2text", "grounding-dino", "open-clip"), a class of your own as
            `package.module:Class`, or the folder of a RAM, RAM++ or Tag2Text.
        **options: The options that a run's config gives the model, such as `path` and `device`.

    Returns:
        The model, ready for `prepare` and `predict`: see the Protocols of `tagmill.models.base`.

    Raises:
        ConfigError: There is no such model, it refuses the options, or its files do not fit.

    Examples:
        >>> model = load_model("ram", path="checkpoints/ram", device="cpu")
        >>> "zebra" in model.classes
        True
    """
    model = create_named(name, options)
    model.load()
    return model


def predict(
    images: ImageLike | Iterable[ImageLike],
    *,
    model: Any,
    threshold: float | None = None,
    taglist: str | os.PathLike[str] | Iterable[str] | None = None,
    vocabulary: Vocabulary | None = None,
    batch_size: int = 8,
) -> Predictions:
    """Tag images.

    Args:
        images: One image or several: paths, PIL images or arrays of uint8, mixed as you like.
        model: A tagger that `load_model` gave, or what it takes as a name.
        threshold: The score above which a tag counts, from 0 to 1; by default the model's own for each tag,
            or 0.5 if it has none.
        taglist: The only tags to give, and to score where the model can leave classes out: a file with one a
            line, or their names. A prediction has them by these names. Another spelling or a synonym of a
            class is found by the vocabulary. With a warning, tags that the model has no class for are left
            out, and synonyms of one class are given by one name.
        vocabulary: Where synonyms and Chinese names are looked up; by default the built-in one.
        batch_size: Images in one call of the model.

    Returns:
        A list with a prediction for each image, in order: `path` (an invented name for what is not a file),
        `pixels` and `tags`, a list of dictionaries with `tag` and `score`, the highest score first.

    Raises:
        ConfigError: An image cannot be read or tagged, the model is not a tagger, or breaks that Protocol;
            a name of `taglist` is neither a tag nor a class, or the model has a class for none.
        TypeError: Something is not an image.

    Examples:
        >>> (found,) = predict("photos/beach.jpg", model="checkpoints/ram", threshold=0.9)
        >>> [tag["tag"] for tag in found.tags]
        ['beach', 'rocket']
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"threshold must be from 0 to 1, got {threshold}")
    tagger = load_model(model) if isinstance(model, str | os.PathLike) else model
    check_tagger(tagger)
    known = Vocabulary.load() if vocabulary is None else vocabulary
    asked = None if taglist is None else _asked(taglist, tagger, known)
    given = [images] if isinstance(images, str | os.PathLike | pillow.Image | np.ndarray) else list(images)
    found = Predictions()
    for start in range(0, len(given), batch_size):
        batch = _batch(given[start : start + batch_size], start)
        if not batch.errors:
            prediction.tag(batch, tagger, known, threshold, asked)
        if batch.errors:
            raise ConfigError("; ".join(f"{path}: {why}" for path, why in batch.errors.items()))
        found += [ImagePrediction(one.path, one.pixels, one.caption, one.tags) for one in batch.images]
    return found


def _asked(taglist: str | os.PathLike[str] | Iterable[str], tagger: Any, vocabulary: Vocabulary) -> TagList:
    if isinstance(taglist, str | os.PathLike):
        asked = TagList.read(Path(taglist), tagger.classes, vocabulary)
    else:
        asked = TagList.of(list(taglist), tagger.classes, vocabulary, "taglist")
    for line in asked.remarks():
        warnings.warn(line, stacklevel=3)
    return asked


def _batch(given: list[ImageLike], first: int) -> ImageBatch:
    batch = ImageBatch()
    for place, image in enumerate(given, first):
        if isinstance(image, str | os.PathLike):
            batch.read(Path(image))
        else:
            batch.images.append(Prediction(Path(f"image {place}"), _pixels(image)))
    return batch


def _pixels(image: Any) -> NDArray[np.uint8]:
    """Give the upright RGB pixels of a PIL image or an array."""
    if isinstance(image, np.ndarray):
        channels = image.shape[2:] if image.ndim == 3 else ()
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in ((), (3,), (4,)):
            shape = f"{image.dtype} {image.shape}"
            raise TypeError(f"an image is uint8 (height, width), or with 3 or 4 channels, not {shape}")
        image = pillow.fromarray(image)
    if not isinstance(image, pillow.Image):
        raise TypeError(f"an image is a path, a PIL image or an array, not a {type(image).__name__}")
    image.load()
    return np.array(pixels.rgb(image))
