"""A model's scores on labelled images of shards or a folder, put into a store."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader

from tagmill.models.base import Floats
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.store import Model
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.training import benchmarks
from tagmill.models.training.batches import Batch, Collate
from tagmill.models.training.datasets import Dataset
from tagmill.models.training.examples import Examples, Origin
from tagmill.models.training.labels import EXTENSIONS, KeyedLabels
from tagmill.models.training.loader import Loader
from tagmill.models.training.order import Order, Source
from tagmill.models.training.scores import UNKNOWN, Labels, ScoreStore, ScoreWriter
from tagmill.models.training.steps import Share, Steps
from tagmill.models.training.targets import ClassMap
from tagmill.models.training.views import PlainView
from tagmill.tag_system.core import pixels
from tagmill.tag_system.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class Question:
    """Which tags are asked, `names`, and how: all classes of the model, some (`columns`), or others.

    `embeddings` [names * descriptions, dimension] are label embeddings of tags that the model does not have.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...] | None = None
    embeddings: Tensor | None = None


@dataclass(frozen=True)
class Reading:
    """How images are read: batches, and processes that decode."""

    batch_size: int = 32
    workers: int = 0
    max_pixels: int = 100_000_000


@dataclass(frozen=True)
class Rows:
    """Some images [B, 3, S, S] with their keys; labels [B, tags] if they come with the images."""

    keys: tuple[str, ...]
    images: Tensor
    labels: Labels | None = None


@dataclass(frozen=True)
class Scored:
    """A store of scores, and how many images had no labels and are not in it."""

    store: ScoreStore
    unlabelled: int


def ask(config: RamConfig, tags: Path | None = None, embeddings: Path | None = None) -> Question:
    """Decide what is asked: all classes, the tags of a list, or those with label embeddings of their own.

    Raises ConfigError for tags that are no classes, and for embeddings that do not fit model or list.
    """
    if tags is None:
        if embeddings is not None:
            raise ConfigError("--embeddings needs the names of its tags: name their list by --taglist")
        return Question(config.classes)
    names = benchmarks.read_tags(tags)
    if embeddings is not None:
        return Question(names, embeddings=_embeddings(embeddings, config, len(names)))
    columns = tuple(benchmarks.columns(names, config))
    return Question(tuple(config.classes[column] for column in columns), columns)


def scorer(model: Model, question: Question) -> Callable[[Tensor], Floats]:
    """Make the function from images [B, 3, S, S] to scores [B, tags] in 0..1, on the model's device."""
    weight = next(model.parameters())
    if isinstance(model, Tag2Text):
        asked = None if question.columns is None else torch.tensor(question.columns, device=weight.device)
    elif question.embeddings is not None:
        asked = question.embeddings.to(weight).unflatten(0, (len(question.names), -1))
    else:
        asked = None if question.columns is None else model.labels[list(question.columns)]

    def score(images: Tensor) -> Floats:
        with torch.inference_mode():
            logits = model.score(model.encode(images.to(weight)), asked)
            return logits.float().sigmoid().cpu().numpy()

    return score


def from_shards(
    opened: Sequence[Dataset],
    names: Sequence[str],
    config: RamConfig,
    reading: Reading,
    skipped: Counter[str],
) -> Iterator[Rows]:
    """Read all samples of datasets once, in their order, plain, with the labels that their verdicts make."""
    shape = (3, config.image_size, config.image_size)
    for dataset in opened:
        shards = tuple(dataset.shard_uri(shard) for shard in range(len(dataset.shards)))
        classes = ClassMap(names, dataset.vocabulary)
        origin = Origin(dataset.name, shards, classes, None)
        loader = Loader(
            Steps(
                [dataset],
                Order([Source(dataset.counts, 1.0)], 0, shuffle=False),
                Share(reading.batch_size),
                drop_last=False,
            ),
            Examples([origin], PlainView(config), seed=0, max_pixels=reading.max_pixels),
            Collate(len(names), shape),
            workers=reading.workers,
        )
        yield from map(_rows, loader)
        skipped.update(loader.skipped)


def from_folder(
    folder: Path, names: Iterable[str], config: RamConfig, reading: Reading, skipped: Counter[str]
) -> Iterator[Rows]:
    """Read the images of these names, with or without extension, from a folder; their name is their key."""
    pictures = _Pictures(folder, list(names), config, reading.max_pixels)
    loader: DataLoader[Any] = DataLoader(
        pictures,  # type: ignore[arg-type]  # it has a length and __getitem__, which is all that is called
        batch_size=reading.batch_size,
        num_workers=reading.workers,
        collate_fn=list,
    )
    for found in loader:
        read = [(name, image) for name, image, _ in found if image is not None]
        skipped.update(reason for _, _, reason in found if reason)
        if read:
            yield Rows(tuple(name for name, _ in read), torch.stack([image for _, image in read]))


def collect(
    rows: Iterable[Rows],
    labels: KeyedLabels | None,
    score: Callable[[Tensor], Floats],
    writer: ScoreWriter,
    progress: Callable[[int], None] = lambda count: None,
) -> Scored:
    """Score rows into a store, by their own labels or by others; what those do not know is left out.

    `progress` hears how many images are done. Raises ConfigError if none is left.
    """
    done, unlabelled = 0, 0
    for batch in rows:
        found = _relabelled(batch, labels) if labels is not None else batch
        unlabelled += len(batch.keys) - len(found.keys)
        if found.keys and found.labels is not None:
            writer.add(found.keys, score(found.images), found.labels)
            done += len(found.keys)
            progress(done)
    if not done:
        raise ConfigError(f"none of {unlabelled} images has labels: images and labels must share their keys")
    return Scored(writer.close(), unlabelled)


def _relabelled(batch: Rows, labels: KeyedLabels) -> Rows:
    """Keep the images that are labelled elsewhere, with those labels."""
    found = [(row, one) for row, key in enumerate(batch.keys) if (one := labels.find(key)) is not None]
    kept = [row for row, _ in found]
    stacked = np.stack([one for _, one in found]) if found else None
    return Rows(tuple(batch.keys[row] for row in kept), batch.images[kept], stacked)


def _rows(batch: Batch) -> Rows:
    rows = batch.valid.nonzero().flatten()
    labels = torch.where(batch.known[rows] == 0, float(UNKNOWN), batch.targets[rows])
    keys = tuple(batch.ids[row][1] for row in rows.tolist())
    return Rows(keys, batch.images[rows], labels.numpy().astype(np.uint8))


class _Pictures:
    """Images of a folder for torch's DataLoader: name, what a model sees or None, and why not."""

    def __init__(self, folder: Path, names: Sequence[str], config: RamConfig, max_pixels: int) -> None:
        self._folder, self._names, self._max_pixels = folder, names, max_pixels
        self._view = PlainView(config)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, place: int) -> tuple[str, Tensor | None, str]:
        name = self._names[place]
        path = self._find(name)
        if path is None:
            return name, None, "image_missing"
        try:
            return name, self._view(pixels.decode(path.read_bytes(), self._max_pixels), 0), ""
        except DataError as error:
            return name, None, str(error.reason)

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
        raise ConfigError(f"{path} should hold one tensor [tags x descriptions, {config.dimension}]")
    (found,) = tensors
    if found.shape[1] != config.dimension or len(found) % tags or not len(found):
        raise ConfigError(
            f"{path} is {tuple(found.shape)}: for {tags} tags it should be [tags x descriptions, "
            f"{config.dimension}]"
        )
    if not found.isfinite().all():
        raise ConfigError(f"{path} has numbers that are not finite: make the label embeddings anew")
    return found


def _pickled(path: Path) -> dict[str, Any]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content if isinstance(content, dict) else {"": content}
