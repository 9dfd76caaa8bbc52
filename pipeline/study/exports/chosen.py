"""An example as an export gets it: the tags and boxes that were chosen, and the image."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tagmill.tag_system.sample_tags import LOCALIZER, TAGGER
from tagmill.tag_system.shard_contract import Box, Sample, SampleTag, parse_sample


@dataclass(frozen=True)
class ChosenTag:
    """A decision with a chosen verdict: its boxes that score enough, best first, and the tagger's score."""

    record: SampleTag
    boxes: tuple[Box, ...]
    score: float | None

    @property
    def name(self) -> str:
        """The tag."""
        return self.record.tag


@dataclass(frozen=True)
class ImagePlace:
    """Where an image lies in the dataset: the tar of which shard, from which byte on, how many."""

    shard: str
    offset: int
    size: int


@dataclass(frozen=True)
class ChosenExample:
    """One example: its sample, its chosen tags, and its image as it is stored, b"" if nobody asked for it.

    `record` is the JSON that `sample` was read from. `boxes_under` counts the boxes that were left out for
    their score.
    """

    sample: Sample
    record: bytes
    tags: tuple[ChosenTag, ...]
    boxes_under: int
    place: ImagePlace
    stored: bytes = b""

    @cached_property
    def captions(self) -> list[str]:
        """The texts of the captions, given ones first."""
        return [caption.text for caption in self.sample.captions]


def row_of(one: ChosenExample) -> dict[str, Any]:
    """Give what `where.COLUMNS` says of an example."""
    sample = one.sample
    plain = ("key", "split", "width", "height", "orientation", "format", "sha256", "license", "meta")
    return {name: getattr(sample, name) for name in plain} | {
        "captions": one.captions,
        "labels": [label.name for label in sample.labels],
        "tags": [tag.name for tag in one.tags],
    }


def choose(record: bytes, place: ImagePlace, verdicts: Collection[str], box_score: float) -> ChosenExample:
    """Read a record, and choose its tags by verdict and their boxes by score. Raises DataError."""
    sample = parse_sample(record)
    tags, under = [], 0
    for tag in sample.tags:
        if tag.verdict in verdicts:
            score, found = _evidence(tag)
            boxes = tuple(box for box in found if box[4] >= box_score)
            under += len(found) - len(boxes)
            tags.append(ChosenTag(tag, boxes, score))
    return ChosenExample(sample, record, tuple(tags), under, place)


def _evidence(tag: SampleTag) -> tuple[float | None, list[Box]]:
    """Give the tagger's score of a tag and the localizer's boxes."""
    score, boxes = None, []
    for entry in tag.evidence:
        if entry.model == TAGGER:
            score = entry.score
        elif entry.model == LOCALIZER:
            boxes = entry.boxes or []
    return score, boxes
