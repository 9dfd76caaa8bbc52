"""What an export is: it takes the chosen examples of a dataset one by one, and writes them in its format."""

import datetime
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from tagmill.pipeline.study.exports import losses
from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.tag_system.decisions import VERDICTS, Verdict
from tagmill.tag_system.shard_contract import SPLITS, Manifest, Split
from tagmill.tag_system.vocabulary import Vocabulary

EXPORTS = {
    "coco": "tagmill.pipeline.study.exports.coco:CocoExport",
    "croissant": "tagmill.pipeline.study.exports.croissant:CroissantExport",
    "fiftyone": "tagmill.pipeline.study.exports.fiftyone:FiftyOneExport",
    "hf": "tagmill.pipeline.study.exports.hugging_face:HuggingFaceExport",
    "label-studio": "tagmill.pipeline.study.exports.label_studio:LabelStudioExport",
    "parquet": "tagmill.pipeline.study.exports.tables:ParquetExport",
    "ram": "tagmill.pipeline.study.exports.ram:RamExport",
    "webdataset": "tagmill.pipeline.study.exports.webdataset:WebdatasetExport",
    "yolo": "tagmill.pipeline.study.exports.yolo:YoloExport",
}
"""Short names of the built-in exports."""


@dataclass(frozen=True)
class ExportOptions:
    """What is chosen of a dataset; None leaves a choice to the export, see `Export`.

    `where` is an expression of DuckDB, see `where.WhereFilter`. `box_score` is the least score of a box,
    `classes` a file with a tag a line, `size` how many examples a file of the export holds at most.
    """

    splits: tuple[Split, ...] = SPLITS
    where: str | None = None
    verdicts: tuple[Verdict, ...] | None = None
    box_score: float | None = None
    classes: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class ExportContext:
    """The dataset in `folder` that is exported to `destination`; in the options no default is left open.

    `date` is the dataset's own, or else the day of the export.
    """

    folder: str
    destination: str
    manifest: Manifest
    vocabulary: Vocabulary
    options: ExportOptions
    date: datetime.date


class Export(ABC):
    """Writes one format; what extends it says what the format is and adds `write` and `close`.

    It is constructed with an empty folder, which becomes the destination if nothing fails, and the dataset.
    `lost` counts what the format cannot say, by a sentence each: what `cannot_say` names, of
    `losses.SUBJECTS`, is counted of every example, and `write` adds what is peculiar to the format.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"verdicts", "box_score"})
    """The options that mean something to the format, of verdicts, box_score, classes and size."""

    defaults: ClassVar[ExportOptions] = ExportOptions(verdicts=("kept",), box_score=0.0)
    """What holds where an option is None."""

    reads_images: ClassVar[bool] = True
    """Whether `write` needs the images' bytes."""

    cannot_say: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, context: ExportContext) -> None:
        self.folder, self.context = folder, context
        self.options, self.vocabulary = context.options, context.vocabulary
        self.lost: Counter[str] = Counter()

    def add(self, one: ChosenExample) -> None:
        """Take an example, in the order of the shards; the splits come one after the other."""
        for subject in ("weak boxes", *self.cannot_say):
            sentence, count = losses.SUBJECTS[subject]
            self.lost[sentence] += count(one)
        self.write(one)

    def tag_id(self, name: str) -> int:
        """Give the number of a tag in the vocabulary, from 0."""
        return self._ids[name]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {tag.name: tag.id for tag in self.vocabulary}

    @abstractmethod
    def write(self, one: ChosenExample) -> None:
        """Write an example, or take it up for `close`."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left. It is not called if anything failed."""

    def stop(self) -> None:  # noqa: B027  # most exports hold nothing
        """Let go of files that are open and of what lies elsewhere, whether all went well or not."""


ALL_VERDICTS = ExportOptions(verdicts=VERDICTS, box_score=0.0)
"""Defaults of exports that can say each verdict."""
