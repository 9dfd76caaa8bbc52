"""Labelled images, scored for `tagmill models eval` and `calibrate`: which ones, by which labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tagmill.runners.commands import taggers
from tagmill.runners.commands.models import read_numbers
from tagmill.runners.commands.places import READ
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import SPLITS

if TYPE_CHECKING:
    from tagmill.models.base import Tagger
    from tagmill.models.training.datasets import Dataset
    from tagmill.models.training.evaluation import AskedTags, Rows, Scored
    from tagmill.models.training.labels import KeyedLabels
    from tagmill.pipeline.study.asking import Ask

USUAL = 0.5
"""The threshold of a model that brings none."""


@dataclass(frozen=True)
class ScoringRequest:
    """What is to be scored: the options that `models eval` and `calibrate` share.

    Raises ConfigError for options that contradict each other, before anything is read.
    """

    model: Annotated[str, typer.Argument(help=taggers.MODEL)]
    options: taggers.Options = None
    shards: Annotated[
        list[str] | None, typer.Option(help="folder of a dataset; give it again for another dataset")
    ] = None
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test; again for more; default: val")
    ] = None
    truth: Annotated[
        Path | None,
        typer.Option(help="labels, Parquet or JSON lines (key, tags), in place of the shards' own", **READ),
    ] = None
    annotations: Annotated[
        Path | None, typer.Option("--annots", help="labels as an official list of images", **READ)
    ] = None
    taglist: Annotated[
        Path | None, typer.Option(help="tags to ask, one a line; default: all classes", **READ)
    ] = None
    images: Annotated[
        Path | None, typer.Option(help="folder of the images of --annots, if not in shards")
    ] = None
    embeddings: Annotated[
        Path | None, typer.Option(help="label embeddings of a --taglist that the model does not know", **READ)
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="images in one call of the model")] = 32
    workers: Annotated[int, typer.Option(min=0, help="processes that decode and prepare images")] = 0
    device: taggers.Device = None
    dtype: taggers.Dtype = None

    def __post_init__(self) -> None:
        if (self.shards is None) == (self.images is None):
            raise ConfigError("name the images by --shards, or those of --annots by --images")
        if self.images is not None and self.annotations is None:
            raise ConfigError("--images needs their labels: name the list by --annots and --taglist")
        if self.annotations is not None and (self.taglist is None or self.truth is not None):
            raise ConfigError("--annots needs the list of its tags, --taglist, and no --truth beside it")
        if wrong := [split for split in self.split or () if split not in SPLITS]:
            raise ConfigError(f"--split {wrong[0]}: a split is one of {', '.join(SPLITS)}")

    def tagger(self) -> "Tagger":
        """Construct the model, its weights not read. Raises ConfigError."""
        return taggers.construct(self.model, self.options, device=self.device, dtype=self.dtype)


@contextmanager
def scored(
    request: ScoringRequest, tagger: "Tagger", asked: "AskedTags", console: Console
) -> Iterator[tuple["Scored", dict[str, str]]]:
    """Score all images into a folder that is removed afterwards, and say what could not be used."""
    from tagmill.models.training import evaluation
    from tagmill.models.training.scores import ScoreWriter

    opened = _datasets(request)
    load_options = evaluation.LoadOptions(request.batch_size, request.workers)
    labels = _labels(request, asked, opened)
    skipped: Counter[str] = Counter()
    rows: Iterator[Rows]
    if request.images is not None and labels is not None:
        rows = evaluation.from_folder(request.images, labels.images, tagger.prepare, load_options, skipped)
    else:
        rows = evaluation.from_shards(opened, asked.names, tagger.prepare, load_options, skipped)
    tagger.load()
    with TemporaryDirectory(prefix="tagmill-scores-") as folder, console.status("") as status:
        with taggers.named(request.model):
            found = evaluation.collect(
                rows,
                labels,
                _ask(tagger, asked),
                ScoreWriter(Path(folder), len(asked.names)),
                skipped,
                lambda count: status.update(f"{count:,} images scored"),
            )
        status.stop()
        _report_losses(console, found, skipped, labels)
        yield found, _kinds(opened, asked, labels)


def _ask(tagger: "Tagger", asked: "AskedTags") -> "Ask":
    """Make the call that gives the scores of what is asked."""
    from tagmill.models.ram.tagger import RamTagger
    from tagmill.pipeline.study import asking

    if asked.embeddings is not None and isinstance(tagger, RamTagger):
        return asking.checked(partial(tagger.predict_labels, labels=asked.embeddings), len(asked.names))
    return asking.answers(tagger, asked.columns)


def _datasets(request: ScoringRequest) -> list["Dataset"]:
    """Open every split that is asked for, in every dataset that has it.

    Raises ConfigError if none has, and for a dataset that is named twice: its images would count twice.
    """
    from tagmill.models.training.datasets import open_dataset, read_manifest

    splits = request.split or ["val"]
    folders = request.shards or []
    manifests = [read_manifest(folder) for folder in folders]
    for place, manifest in enumerate(manifests):
        if manifest in manifests[:place]:
            raise ConfigError(f"--shards {folders[place]}: this dataset is named twice, name it once")
    found = [
        open_dataset(folder, split)
        for folder, manifest in zip(folders, manifests, strict=True)
        for split in SPLITS
        if split in splits and manifest.examples.get(split)
    ]
    if request.shards and not found:
        raise ConfigError(f"no dataset has examples in the split {', '.join(splits)}: name another")
    return found


def _labels(request: ScoringRequest, asked: "AskedTags", opened: list["Dataset"]) -> "KeyedLabels | None":
    from tagmill.models.training import benchmarks, labels
    from tagmill.tag_system.vocabulary import normalize_name

    if request.annotations is not None and request.taglist is not None:
        return labels.of_benchmark(benchmarks.read(request.annotations, request.taglist))
    if request.truth is None:
        return None
    vocabulary = opened[0].vocabulary

    def name(tag: str) -> str:
        known = vocabulary.resolve(tag)
        return normalize_name(tag) if known is None else known.name

    return labels.read_truth(request.truth, asked.names, name)


def _kinds(opened: list["Dataset"], asked: "AskedTags", labels: "KeyedLabels | None") -> dict[str, str]:
    """Give the kind of each tag, by the truth or else by the vocabulary of the dataset."""
    kinds: dict[str, str] = {}
    for dataset in opened:
        tags = {name: dataset.vocabulary.resolve(name) for name in asked.names}
        kinds |= {name: tag.kind for name, tag in tags.items() if tag is not None}
    return kinds | dict(labels.kinds if labels else {})


def own_thresholds(tagger: "Tagger") -> Sequence[float] | None:
    """Give a model's own threshold for each of its classes; None if it has none."""
    return getattr(tagger, "thresholds", None)


def thresholds(tagger: "Tagger", asked: "AskedTags", one: float | None, file: Path | None) -> list[float]:
    """Give each asked tag its threshold.

    Raises ConfigError if the file has another number of them, or one that is not a score.
    """
    count = len(asked.names)
    if file is not None:
        limits = read_numbers(file)
        if len(limits) != count:
            raise ConfigError(f"{file} has {len(limits)} thresholds for {count} tags: write one for each")
        for line, limit in enumerate(limits, 1):
            if not 0 <= limit <= 1:
                raise ConfigError(f"{file}:{line}: {limit:g} is not a threshold from 0 to 1")
        return limits
    own = own_thresholds(tagger)
    if one is not None or own is None or asked.embeddings is not None:
        return [USUAL if one is None else one] * count
    columns = range(count) if asked.columns is None else asked.columns
    return [float(own[column]) for column in columns]


def _report_losses(
    console: Console, found: "Scored", skipped: Counter[str], labels: "KeyedLabels | None"
) -> None:
    for reason, count in skipped.items():
        say(console, f"left out {count:,} images: {reason}")
    if found.unlabelled:
        say(console, f"left out {found.unlabelled:,} images: they have no labels")
    if labels is not None and labels.unused:
        say(console, f"{labels.unused:,} labelled images are not there")
    if labels is not None and labels.unmapped:
        common = ", ".join(tag for tag, _ in labels.unmapped.most_common(3))
        say(console, f"{labels.unmapped.total():,} labels are not of a scored class: {common}, ...")


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, highlight=False)
