"""What the pages of a comparison are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tagmill.pipeline.study.diff import DiffFindings, flips
from tagmill.pipeline.study.moved import Cell, MovedTag, is_kept
from tagmill.pipeline.study.site.folder import plain
from tagmill.pipeline.study.site.pictures import ShownExample
from tagmill.tag_system.decisions import Policy

A_CELL = 24
"""Examples that are shown of each kind of change, and images of those that came, went or changed."""

INDEX = "index.html"

MENU = {
    INDEX: "Overview",
    f"{INDEX}#causes": "Causes",
    f"{INDEX}#images": "Images",
    f"{INDEX}#verdicts": "Verdicts",
    f"{INDEX}#tags": "Tags",
}


@dataclass(frozen=True)
class ShownSide:
    """A side: its name without where it lies, the policy that decided, the number of its images."""

    name: str
    policy: Policy
    images: int


@dataclass
class ShownDiff:
    """Two sides, what differs between them, and where it is shown.

    Attributes:
        sides: A and B.
        found: What differs, with up to `A_CELL` examples of each kind.
        unknown: Stages of which it is not known how they took examples out of an older generation.
        pages: The page of each kind of change, the largest first.
        shown: The pictures of each example's image, by key.
        box_sides: The side, 0 for A, whose box of a tag is cut out, by key and tag.
    """

    sides: tuple[ShownSide, ShownSide]
    found: DiffFindings
    unknown: Sequence[str]
    pages: Mapping[Cell, str]
    shown: Mapping[str, ShownExample] = field(default_factory=dict)
    box_sides: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def examples(self, cell: Cell) -> Sequence[MovedTag]:
        """Give the examples of a kind of change."""
        return self.found.examples.get(cell, ())


def cell_pages(found: DiffFindings) -> dict[Cell, str]:
    """Name the pages of all kinds of change, the largest first."""
    return {
        cell: f"cells/{place:03d}-{'--'.join(map(plain, cell))}.html"
        for place, (cell, _) in enumerate(flips(found), 1)
    }


def direction(cell: Cell) -> str:
    """Say what a change does to a tag: B alone keeps it, A alone, neither more than the other, or nothing."""
    was, now = map(is_kept, cell)
    if was == now:
        return "same" if cell[0] == cell[1] else "moved"
    return "won" if now else "lost"


def short_names(one: str, other: str) -> tuple[str, str]:
    """Name two folders by the ends of their paths, as short as tells them apart."""
    paths = [title.rstrip("/").split("/") for title in (one, other)]
    for count in range(1, max(map(len, paths)) + 1):
        ends = ["/".join(path[-count:]) for path in paths]
        if ends[0] != ends[1]:
            break
    return (ends[0], ends[1]) if ends[0] != ends[1] else (paths[0][-1], paths[1][-1])
