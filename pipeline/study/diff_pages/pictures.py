"""The pictures of a comparison: an image from the side that has it, a box from the side that found one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tagmill.models.base import Image
from tagmill.pipeline.study.decided_images import DecidedImages
from tagmill.pipeline.study.example import Example
from tagmill.pipeline.study.moved import MovedTag
from tagmill.pipeline.study.site.pictures import PictureMaker, ShownExample

Place = tuple[str, int]


@dataclass
class DiffPictures:
    """What was made: the pictures by key, and by key and tag the side, 0 for A, whose box is cut out."""

    shown: dict[str, ShownExample] = field(default_factory=dict)
    box_sides: dict[tuple[str, str], int] = field(default_factory=dict)


def make_pictures(
    sides: tuple[DecidedImages, DecidedImages], moved: Iterable[MovedTag], folder: Path
) -> DiffPictures:
    """Write pictures of moved tags into a folder of pages. Raises DamageError."""
    tags: dict[str, set[str]] = {}
    places: dict[str, tuple[Place, Place]] = {}
    for one in moved:
        tags.setdefault(one.key, set()).add(one.tag)
        places[one.key] = one.places
    found = [_examples(side, (pair[number] for pair in places.values())) for number, side in enumerate(sides)]
    pairs = {key: (found[0][a], found[1][b]) for key, (a, b) in sorted(places.items())}
    maker = PictureMaker(_EitherSide(sides, {key: pair[0] for key, pair in pairs.items()}), folder)
    made = DiffPictures()
    for key, (a, b) in pairs.items():
        boxed = [{region["tag"] for region in example.regions} for example in (a, b)]
        for tag in tags[key] & (boxed[0] | boxed[1]):
            made.box_sides[key, tag] = int(tag in boxed[1])
    examples = [(_with_boxes(b, a), tags[key]) for key, (a, b) in pairs.items()]
    made.shown.update(zip(pairs, maker.make(examples), strict=True))
    return made


def _examples(side: DecidedImages, places: Iterable[Place]) -> dict[Place, Example]:
    """Find examples, each part at once."""
    rows: dict[str, list[int]] = {}
    for part, row in places:
        rows.setdefault(part, []).append(row)
    return {(part, one.row): one for part, some in sorted(rows.items()) for one in side.examples(part, some)}


def _with_boxes(example: Example, other: Example) -> Example:
    """Add the boxes of tags for which the example has none."""
    there = {region["tag"] for region in example.regions}
    added = [region for region in other.regions if region["tag"] not in there]
    return replace(example, regions=[*example.regions, *added])


class _EitherSide:
    """Decodes an image as B has it; where B has it no more, as A does: the bytes are equal."""

    def __init__(self, sides: tuple[DecidedImages, DecidedImages], others: Mapping[str, Example]) -> None:
        self._sides, self._others = sides, others

    def read(self, example: Example) -> Image:
        """Decode the image of an example of B."""
        try:
            return self._sides[1].read(example)
        except PictureMaker.LACKING:
            return self._sides[0].read(self._others[example.key])
