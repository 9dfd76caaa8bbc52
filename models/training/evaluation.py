"""A model's scores on labelled images of shards or a folder, put into a store."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import PIL.Image
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tagmill.models import guard
from tagmill.models.base import Floats, Image, Prepared, Tagger
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.tagger import RamTagger
from tagmill.models.training import benchmarks
from tagmill.models.training.datasets import Dataset
from tagmill.models.training.examples import DatasetInfo, Examples, Skipped, TrainingExample
from tagmill.models.training.labels import EXTENSIONS, KeyedLabels
from tagmill.models.training.order import DatasetSizes, Order
from tagmill.models.training.packing import batches
from tagmill.models.training.scores import Labels, ScoreStore, ScoreWriter, labels_of
from tagmill.models.training.steps import Share, Steps
from tagmill.models.training.targets import ClassMap
from tagmill.tag_system.core import pixels
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason

Prepare = Callable[[Image], Prepared]
"""A model's `prepare`; the processes that decode call it."""

Score = Callable[[list[Prepared]], Sequence[Floats]]
"""Scores of the asked tags [tags] for each of some prepared images."""


@dataclass(frozen=True)
class AskedTags:
    """The tags that a model is scored on.

    Attributes:
        names: Names of the tags.
        columns: Index of each tag among the model's classes; None for all classes, or with `embeddings`.
        embeddings: float32 [names, descriptions, dimension], label embeddings of tags that the model lacks.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...] | None = None
    embeddings: Tensor | None = None


@dataclass(frozen=True)
class LoadOptions:
    """How images are loaded.

    Attributes:
        batch_size: Images in a batch.
        workers: Processes that read and decode.
        max_pixels: Most pixels of an image that is decoded.
    """

    batch_size: int = 32
    workers: int = 0
    max_pixels: int = 100_000_000


@dataclass(frozen=True)
class Rows:
    """Some images by their keys, as the model prepared them, or why it could not.

    `labels` [images, tags] if they come with the images.
    """

    keys: tuple[str, ...]
    images: tuple[Prepared | DataError, ...]
    labels: Labels | None = None


@dataclass(frozen=True)
class Scored:
    """A store of scores, and how many images had no labels and are not in it."""

    store: ScoreStore
    unlabelled: int


def ask(tagger: Tagger, tags: Path | None = None, embeddings: Path | None = None) -> AskedTags:
    """Decide what is asked: all classes, the tags of a list, or those with label embeddings of their own.

    Raises ConfigError for tags that are not classes, and for embeddings that do not fit model or list.
    """
    if tags is None:
        if embeddings is not None:
            raise ConfigError("--embeddings needs the names of its tags: name their list by --taglist")
        return AskedTags(tuple(tagger.classes))
    names = benchmarks.read_tags(tags)
    if embeddings is not None:
        if not isinstance(tagger, RamTagger):
            raise ConfigError(
                f"{type(tagger).__name__} has no label embeddings: it can only be asked for its own classes"
            )
        return AskedTags(names, embeddings=_embeddings(embeddings, tagger.config, len(names)))
    columns = tuple(benchmarks.columns(names, tagger.classes))
    return AskedTags(tuple(tagger.classes[column] for column in columns), columns)


def from_shards(
    opened: Sequence[Dataset],
    names: Sequence[str],
    prepare: Prepare,
    load_options: LoadOptions,
    skipped: Counter[str],
) -> Iterator[Rows]:
    """Read all samples of datasets once, in their order, with the labels that their verdicts make."""
    for dataset in opened:
        shards = tuple(dataset.shard_uri(shard) for shard in range(len(dataset.shards)))
        origin = DatasetInfo(dataset.name, shards, ClassMap(names, dataset.vocabulary), None)
        order = Order([DatasetSizes(dataset.counts, 1.0)], 0, shuffle=False)
        examples = Examples([origin], _ModelView(prepare), seed=0, max_pixels=load_options.max_pixels)
        steps = Steps([dataset], order, Share(load_options.batch_size), drop_last=False)
        for found in batches(examples, load_options.workers, batch_sampler=steps):
            read = [one for one in found if isinstance(one, TrainingExample)]
            skipped.update(str(one.reason) for one in found if isinstance(one, Skipped))
            if read:
                yield Rows(
                    tuple(one.key for one in read),
                    tuple(one.image for one in read),
                    np.stack([labels_of(one.target.values, one.target.known) for one in read]),
                )


def from_folder(
    folder: Path, names: Iterable[str], prepare: Prepare, load_options: LoadOptions, skipped: Counter[str]
) -> Iterator[Rows]:
    """Read the images of these names, with or without extension, from a folder; their name is their key."""
    pictures = _Pictures(folder, list(names), _ModelView(prepare), load_options.max_pixels)
    for found in batches(pictures, load_options.workers, batch_size=load_options.batch_size):
        read = [(name, image) for name, image, reason in found if not reason]
        skipped.update(reason for _, _, reason in found if reason)
        if read:
            yield Rows(tuple(name for name, _ in read), tuple(image for _, image in read))


def collect(
    rows: Iterable[Rows],
    labels: KeyedLabels | None,
    score: Score,
    writer: ScoreWriter,
    skipped: Counter[str],
    progress: Callable[[int], None] = lambda count: None,
) -> Scored:
    """Score rows into a store, by their own labels or by others; what those do not know is left out.

    Images that the model fails on are counted in `skipped`; more than `guard.MAX_FAILURES` are a bug, which
    is raised. `progress` hears how many images are done. Raises ConfigError if none is left.
    """
    done, labelled, unlabelled, failures = 0, 0, 0, guard.Failures()
    for batch in rows:
        known = _relabelled(batch, labels) if labels is not None else batch
        labelled += len(known.keys)
        unlabelled += len(batch.keys) - len(known.keys)
        found = _scored(known, score, skipped, failures)
        if found is not None:
            writer.add(*found)
            done += len(found[0])
            progress(done)
    if not done and unlabelled and not labelled:
        raise ConfigError(f"none of {unlabelled} images has labels: images and labels must share their keys")
    if not done:
        why = "; ".join(f"{count} left out: {reason}" for reason, count in skipped.items())
        raise ConfigError(f"no image could be scored; {why or 'there is none'}")
    return Scored(writer.close(), unlabelled)


def _scored(
    rows: Rows, score: Score, skipped: Counter[str], failures: guard.Failures
) -> tuple[list[str], Floats, Labels] | None:
    """Give keys, scores and labels of the rows that the model did not fail on; None if there are none."""
    if rows.labels is None:
        return None
    failures.add(rows.images)
    places = [place for place, image in enumerate(rows.images) if not isinstance(image, DataError)]
    images = [rows.images[place] for place in places]
    answers = guard.predict(score, images, max(1, len(images)), max_failures=failures.left)
    failures.add(answers)
    skipped.update(_why(one) for one in (*rows.images, *answers) if isinstance(one, DataError))
    pairs = zip(places, answers, strict=True)
    good = {place: found for place, found in pairs if not isinstance(found, DataError)}
    if not good:
        return None
    return [rows.keys[place] for place in good], np.stack(list(good.values())), rows.labels[list(good)]


def _why(error: DataError) -> str:
    """Say why an image is left out; what a model raised is worth its words, as there are few of them."""
    return str(error) if error.reason is Reason.MODEL_FAILED else str(error.reason)


def _relabelled(batch: Rows, labels: KeyedLabels) -> Rows:
    """Keep the images that are labelled elsewhere, with those labels."""
    found = [(row, one) for row, key in enumerate(batch.keys) if (one := labels.find(key)) is not None]
    stacked = np.stack([one for _, one in found]) if found else None
    return Rows(
        tuple(batch.keys[row] for row, _ in found), tuple(batch.images[row] for row, _ in found), stacked
    )


class _ModelView:
    """How a model prepares a decoded image; what it fails on is that image's DataError."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare

    def __call__(self, image: PIL.Image.Image, seed: int) -> Any:
        return guard.prepare(partial(self._prepare, np.array(image)))


class _Pictures:
    """Images of a folder, a map-style dataset: name, what a model sees or None, and why not."""

    def __init__(self, folder: Path, names: Sequence[str], view: _ModelView, max_pixels: int) -> None:
        self._folder, self._names, self._view, self._max_pixels = folder, names, view, max_pixels

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, place: int) -> tuple[str, Any, str]:
        name = self._names[place]
        path = self._find(name)
        if path is None:
            return name, None, "image_missing"
        try:
            image = pixels.decode(path.read_bytes(), self._max_pixels)
        except DataError as error:
            return name, None, str(error.reason)
        return name, self._view(image, 0), ""

    def _find(self, name: str) -> Path | None:
        ends = ("", *EXTENSIONS, *(end.upper() for end in EXTENSIONS))
        paths = (self._folder / (name + end) for end in ends)
        return next((path for path in paths if path.is_file()), None)


def _embeddings(path: Path, config: RamConfig, tags: int) -> Tensor:
    if config.kind == "tag2text":
        raise ConfigError("Tag2Text has no label embeddings: it can only be asked for its own classes")
    try:
        stored = load_file(path) if path.suffix == ".safetensors" else _pickled(path)
    except (OSError, RuntimeError, EOFError, SafetensorError, UnpicklingError) as error:
        raise ConfigError(f"cannot read the label embeddings {path}: {str(error).splitlines()[0]}") from error
    tensors = [value for value in stored.values() if isinstance(value, Tensor)]
    if len(tensors) != 1 or tensors[0].ndim != 2:
        raise ConfigError(f"{path} must hold one tensor [tags x descriptions, {config.dimension}]")
    (found,) = tensors
    if found.shape[1] != config.dimension or len(found) % tags or not len(found):
        raise ConfigError(
            f"{path} is {tuple(found.shape)}: for {tags} tags it should be [tags x descriptions, "
            f"{config.dimension}]"
        )
    if not found.isfinite().all():
        raise ConfigError(f"{path} has numbers that are not finite: make the label embeddings again")
    return found.unflatten(0, (tags, -1))


def _pickled(path: Path) -> dict[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content if isinstance(content, dict) else {"": content}
