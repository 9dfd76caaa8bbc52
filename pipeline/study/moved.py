"""Tags that moved from one verdict or rule to another: a few of each kind, chosen by chance."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.study.decided import IMAGES, Chunk
from tagmill.pipeline.study.evaluation import Truth
from tagmill.pipeline.study.site.sampling import BY_CHANCE, FirstRows
from tagmill.tag_system.decisions import Policy
from tagmill.tag_system.reasons import measured

CLOSE = 1e-4
"""How far a score lies from its constant at most, where other bits of a sum could have decided otherwise."""

ABSENT = "no candidate"
"""The verdict on a tag that is none of an image's candidates."""

Cell = tuple[str, str]
"""Two verdicts with their rules: on the one side and on the other."""

Decisions = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]
"""What A and B decided on a tag of an image, see `decided.TAGS`; None where it is no candidate."""

Policies = tuple[Policy, Policy]


@dataclass(frozen=True)
class MovedTag:
    """A tag of a common image with another verdict or rule in B than in A.

    Attributes:
        key: The image's key.
        tag: The tag.
        decisions: What both sides decided.
        places: Part and row of the image on both sides.
        is_close: Whether the verdict differs, with a score that decided close to its constant.
        is_true: What the truth says of the tag; None if it does not know, or there is none.
    """

    key: str
    tag: str
    decisions: Decisions
    places: tuple[tuple[str, int], tuple[str, int]]
    is_close: bool
    is_true: bool | None


def verdict_of(state: str) -> str:
    """Give the verdict of a verdict with its rule."""
    return state.partition("/")[0]


def is_kept(state: str) -> bool:
    """Tell whether a verdict with its rule keeps a tag."""
    return verdict_of(state) == "kept"


def is_close(cell: Cell, decisions: Decisions, policies: Policies) -> bool:
    """Tell whether the verdict differs, and a score that decided lies close to its constant."""
    if verdict_of(cell[0]) == verdict_of(cell[1]):
        return False
    scores = (measured(one, policy) for one, policy in zip(decisions, policies, strict=True) if one)
    return any(score and score.distance <= CLOSE for score in scores)


def truth_of(truth: Truth | None, key: str, tag: str) -> bool | None:
    """Say whether an image shows a tag, by the truth; None if it does not know."""
    about = {"key": key}
    true = truth.of(about) if truth else None
    return None if truth is None or true is None or tag not in truth.known(about) else tag in true


class MovedSample:
    """Chooses up to `most` moved tags of each cell, by the digests of their images."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = FirstRows(("a_state", "b_state"), (*BY_CHANCE, "tag"), most)

    def add(self, moved: pa.Table, a: Chunk, b: Chunk) -> None:
        """Consider tags that moved: `key`, `tag`, both states, and as `a` and `b` their rows in `tags`."""
        if not (self._most and moved.num_rows):
            return
        table = moved.select(["key", "tag", "a_state", "b_state"])
        for name, chunk in (("a", a), ("b", b)):
            images = chunk.images.take(pc.index_in(moved["key"], chunk.images["key"]))
            for column in IMAGES.names[1:]:
                title = column if column in BY_CHANCE else f"{name}_{column}"
                if title not in table.column_names:
                    table = table.append_column(title, images[column])
            decisions = chunk.tags.take(moved[name]).to_struct_array()
            table = table.append_column(name, decisions)
        self._rows.add(table)

    def chosen(self, policies: Policies, truth: Truth | None) -> dict[Cell, list[MovedTag]]:
        """Give those that are chosen, by cell, in the order of chance."""
        found: dict[Cell, list[MovedTag]] = defaultdict(list)
        table = self._rows.table()
        for row in [] if table is None else table.to_pylist():
            cell = row["a_state"], row["b_state"]
            decisions = _decision(row["a"]), _decision(row["b"])
            places = (row["a_part"], row["a_row"]), (row["b_part"], row["b_row"])
            is_true = truth_of(truth, row["key"], row["tag"])
            close = is_close(cell, decisions, policies)
            found[cell].append(MovedTag(row["key"], row["tag"], decisions, places, close, is_true))
        return dict(found)


def _decision(row: dict[str, Any]) -> dict[str, Any] | None:
    return row if row["rule"] is not None else None


class OddImages:
    """Chooses up to `most` of the images that came, went or changed, in the same way."""

    KINDS = ("came", "went", "changed")

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = FirstRows(("what",), BY_CHANCE, most)

    def add(self, what: str, images: pa.Table) -> None:
        """Consider images."""
        if self._most and images.num_rows:
            table = images.select(list(BY_CHANCE))
            self._rows.add(table.append_column("what", pa.array([what] * images.num_rows, pa.string())))

    def keys(self) -> dict[str, list[str]]:
        """Give the keys of those that are chosen."""
        table = self._rows.table()
        rows: Sequence[dict[str, str]] = [] if table is None else table.to_pylist()
        return {what: [row["key"] for row in rows if row["what"] == what] for what in self.KINDS}
