"""Verdicts with their rules in A against those in B: a table whose cells are shaded by their counts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log

from tagmill.pipeline.study.diff import DiffFindings
from tagmill.pipeline.study.diff_pages.base import direction
from tagmill.pipeline.study.moved import ABSENT, Cell, verdict_of

VERDICTS = ("kept", "uncertain", "dropped", ABSENT)
"""Their order in the matrix."""

SHADES = 5
"""Classes of the style sheet, the darkest one for the largest kind of change."""


@dataclass(frozen=True)
class Group:
    """Verdicts with one word and several rules, side by side in the matrix."""

    verdict: str
    rules: Sequence[str]


@dataclass(frozen=True)
class Shaded:
    """A cell: how many tags, how many of them close, its classes in the style sheet, and its page or ""."""

    cell: Cell
    count: int
    close: int
    style: str
    path: str


@dataclass(frozen=True)
class Row:
    """A row: the state in A, how many rows its verdict has if it is the first of them, its cells and sum."""

    verdict: str
    rule: str
    span: int
    cells: Sequence[Shaded]
    total: int


@dataclass(frozen=True)
class Matrix:
    """Rows are the verdicts and rules of A, columns those of B."""

    columns: Sequence[Group]
    rows: Sequence[Row]
    totals: Sequence[int]


def matrix(found: DiffFindings, pages: Mapping[Cell, str]) -> Matrix:
    """Lay out the counts of all tags of common images."""
    rows, columns = (_grouped({cell[side] for cell in found.cells}) for side in (0, 1))
    states = list(_states(columns))
    most = max((count for cell, count in found.cells.items() if cell[0] != cell[1]), default=1)
    made = []
    for group in rows:
        for place, state in enumerate(_states([group])):
            cells = [_shaded(found, (state, other), pages, most) for other in states]
            span = 0 if place else len(group.rules)
            made.append(Row(group.verdict, group.rules[place], span, cells, sum(one.count for one in cells)))
    totals = [sum(row.cells[place].count for row in made) for place in range(len(states))]
    return Matrix(columns, made, totals)


def _grouped(states: set[str]) -> list[Group]:
    def order(verdict: str) -> tuple[int, str]:
        return (VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS), verdict)

    verdicts = sorted({verdict_of(state) for state in states}, key=order)
    return [
        Group(verdict, sorted(state.partition("/")[2] for state in states if verdict_of(state) == verdict))
        for verdict in verdicts
    ]


def _states(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        for rule in group.rules:
            yield f"{group.verdict}/{rule}" if rule else group.verdict


def _shaded(found: DiffFindings, cell: Cell, pages: Mapping[Cell, str], most: int) -> Shaded:
    count = found.cells[cell]
    style = direction(cell) if count else ""
    if count and cell[0] != cell[1]:
        style += f" shade-{shade(count, most)}"
    return Shaded(cell, count, found.close[cell], style, pages.get(cell, ""))


def shade(count: int, most: int) -> int:
    """Give the class of a count, from 1 to `SHADES`, by its logarithm."""
    return 1 + round((SHADES - 1) * log(count + 1) / log(most + 1))
