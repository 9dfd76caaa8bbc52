"""Labelled images, scored for `tagmill models eval` and `calibrate`: which ones, by which labels."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console

from tagmill.runners.commands.models import read_numbers
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.shard_contract import SPLITS

if TYPE_CHECKING:
    from tagmill.models.ram.config import RamConfig
    from tagmill.models.training.datasets import Dataset
    from tagmill.models.training.evaluation import Question, Rows, Scored
    from tagmill.models.training.labels import KeyedLabels

USUAL = 0.5
"""The threshold of a model that brings none."""


@dataclass(frozen=True)
class Request:
    """What is to be scored, as the command line has it.

    Raises ConfigError for options that contradict each other, before anything is read.
    """

    model: Path
    shards: list[str] | None
    splits: list[str] | None
    truth: Path | None
    annotations: Path | None
    taglist: Path | None
    images: Path | None
    embeddings: Path | None
    batch_size: int
    workers: int
    device: str
    dtype: str

    def __post_init__(self) -> None:
        from tagmill.models.pretrained import check_dtype

        check_dtype(self.dtype)
        if (self.shards is None) == (self.images is None):
            raise ConfigError("name the images by --shards, or those of --annots by --images")
        if self.images is not None and self.annotations is None:
            raise ConfigError("--images needs their labels: name the list by --annots and --taglist")
        if self.annotations is not None and (self.taglist is None or self.truth is not None):
            raise ConfigError("--annots needs the list of its tags, --taglist, and no --truth beside it")
        if wrong := [split for split in self.splits or () if split not in SPLITS]:
            raise ConfigError(f"--split {wrong[0]}: a split is one of {', '.join(SPLITS)}")


@contextmanager
def scored(
    request: Request, config: "RamConfig", question: "Question", console: Console
) -> Iterator[tuple["Scored", dict[str, str]]]:
    """Score all images into a folder that is gone afterwards, and say what could not be used."""
    import torch

    from tagmill.models.pretrained import resolve_device
    from tagmill.models.ram import store
    from tagmill.models.training import evaluation
    from tagmill.models.training.scores import ScoreWriter

    opened = _datasets(request)
    reading = evaluation.Reading(request.batch_size, request.workers)
    labels = _labels(request, question, opened)
    skipped: Counter[str] = Counter()
    rows: Iterator[Rows]
    if request.images is not None and labels is not None:
        rows = evaluation.from_folder(request.images, labels.images, config, reading, skipped)
    else:
        rows = evaluation.from_shards(opened, question.names, config, reading, skipped)
    model = store.load(request.model).to(resolve_device(request.device), getattr(torch, request.dtype))
    with TemporaryDirectory(prefix="tagmill-scores-") as folder, console.status("") as status:
        found = evaluation.collect(
            rows,
            labels,
            evaluation.scorer(model, question),
            ScoreWriter(Path(folder), len(question.names)),
            lambda count: status.update(f"{count:,} images scored"),
        )
        status.stop()
        _report_losses(console, found, skipped, labels)
        yield found, _kinds(opened, question, labels)


def _datasets(request: Request) -> list["Dataset"]:
    """Open every split that is asked for, in every dataset that has it.

    Raises ConfigError if none has, and for a dataset that is named twice: its images would count twice.
    """
    from tagmill.models.training.datasets import open_dataset, read_manifest

    splits = request.splits or ["val"]
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


def _labels(request: Request, question: "Question", opened: list["Dataset"]) -> "KeyedLabels | None":
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

    return labels.read_truth(request.truth, question.names, name)


def _kinds(opened: list["Dataset"], question: "Question", labels: "KeyedLabels | None") -> dict[str, str]:
    """Give the kind of each tag, by the truth or else by the vocabulary of the dataset."""
    kinds: dict[str, str] = {}
    for dataset in opened:
        tags = {name: dataset.vocabulary.resolve(name) for name in question.names}
        kinds |= {name: tag.kind for name, tag in tags.items() if tag is not None}
    return kinds | dict(labels.kinds if labels else {})


def thresholds(
    config: "RamConfig", question: "Question", one: float | None, file: Path | None
) -> list[float]:
    """Give each asked tag its threshold.

    Raises ConfigError if the file has another number of them, or one that is no score.
    """
    count = len(question.names)
    if file is not None:
        limits = read_numbers(file)
        if len(limits) != count:
            raise ConfigError(f"{file} has {len(limits)} thresholds for {count} tags: write one for each")
        for line, limit in enumerate(limits, 1):
            if not 0 <= limit <= 1:
                raise ConfigError(f"{file}:{line}: {limit:g} is no threshold, which is from 0 to 1")
        return limits
    if one is not None or config.thresholds is None or question.embeddings is not None:
        return [USUAL if one is None else one] * count
    columns = range(count) if question.columns is None else question.columns
    return [config.thresholds[column] for column in columns]


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
        say(console, f"{labels.unmapped.total():,} labels are of no class that is asked: {common}, ...")


def say(console: Console, line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, highlight=False)
