"""Tables that a terminal of any width shows whole: numbers are never cut, and no cell is broken."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tagmill.runners.commands.terminal import safe

NO_LIMIT = 100_000
"""Characters of a line where nobody said how wide one may be, as in a pipe."""

LEAST = 16
"""Characters that are left of a name which is cut."""

MOST_LINES = 3
"""Lines that a row is laid out in, under headings of as many; one that needs more is stacked."""

INDENT = 2


@dataclass(frozen=True)
class Column:
    """A column: whether it is of numbers, whether its cells may be cut, and whether it begins a line where a
    row takes several.
    """

    name: str
    is_number: bool = False
    may_be_cut: bool = False
    begins_line: bool = False


def columns_of(words: Sequence[str], numbers: Sequence[str], cut: Sequence[str] = ()) -> list[Column]:
    """Make columns of words and then of numbers; those of `cut` may be cut."""
    named = [Column(name, may_be_cut=name in cut) for name in words]
    return named + [Column(name, is_number=True) for name in numbers]


class FittedTable:
    """A table that takes the form which the width allows.

    A row is a line; if it is too long, names are cut in the middle; else it takes two or three lines, as the
    headings do; else each of its cells a line.
    """

    def __init__(self, columns: Sequence[Column], heading: str = "bold") -> None:
        self._columns = list(columns)
        self._heading = heading
        self._rows: list[tuple[list[str], str]] = []

    def add_row(self, *cells: str, style: str = "") -> None:
        """Add a row, one cell for each column."""
        self._rows.append(([safe(cell) for cell in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the lines."""
        is_limited = console.is_terminal or "COLUMNS" in os.environ
        width = options.max_width if is_limited else max(NO_LIMIT, options.max_width)
        for line, style in self._lines(width):
            yield Text(line, style, no_wrap=True, overflow="ignore")

    def _lines(self, width: int) -> Iterator[tuple[str, str]]:
        widths = self._widths()
        gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= width else 1
        cut = self._cut(widths, width - gap * (len(widths) - 1))
        layout = self._layout([min(one, width) for one in widths], width)
        if cut is not None:
            yield from self._laid_out(cut, [range(len(cut))], gap)
        elif len(layout) <= MOST_LINES:
            yield from self._laid_out([min(one, width - INDENT) for one in widths], layout, 1)
        else:
            yield from self._stacked(width)

    def _widths(self) -> list[int]:
        cells = [[column.name for column in self._columns], *(row for row, _ in self._rows)]
        return [max(cell_len(row[place]) for row in cells) for place in range(len(self._columns))]

    def _cut(self, widths: list[int], room: int) -> list[int] | None:
        """Give widths that fit into the room, of names that may be cut less; None if that is not enough."""
        found = list(widths)
        while sum(found) > room:
            left = [
                place
                for place, column in enumerate(self._columns)
                if column.may_be_cut and found[place] > max(LEAST, cell_len(column.name))
            ]
            if not left:
                return None
            found[max(left, key=lambda place: found[place])] -= 1
        return found

    def _layout(self, widths: list[int], width: int) -> list[range]:
        """Deal the columns to lines."""
        lines, start, used = [], 0, 0
        for place, one in enumerate(widths):
            if place > start and (used + 1 + one > width or self._columns[place].begins_line):
                lines.append(range(start, place))
                start, used = place, INDENT - 1
            used += one + (place > start)
        return [*lines, range(start, len(widths))]

    def _laid_out(self, widths: list[int], layout: list[range], gap: int) -> Iterator[tuple[str, str]]:
        names = [column.name for column in self._columns]
        for row, style in [(names, self._heading), *self._rows]:
            for number, places in enumerate(layout):
                cells = (self._cell(row[place], place, widths[place]) for place in places)
                yield " " * (INDENT * bool(number)) + (" " * gap).join(cells).rstrip(), style

    def _cell(self, text: str, place: int, width: int) -> str:
        text = shortened(text, width)
        room = " " * (width - cell_len(text))
        return room + text if self._columns[place].is_number else text + room

    def _stacked(self, width: int) -> Iterator[tuple[str, str]]:
        longest = max(cell_len(column.name) for column in self._columns)
        for number, (row, style) in enumerate(self._rows):
            if number:
                yield "", ""
            for column, cell in zip(self._columns, row, strict=True):
                name = column.name + " " * (longest - cell_len(column.name))
                said = cell if column.is_number else shortened(cell, max(LEAST, width - longest - 2))
                yield f"{name}  {said}".rstrip(), style


def shortened(text: str, width: int) -> str:
    """Cut a text in the middle, so that it takes no more than so many characters of a terminal."""
    if cell_len(text) <= width:
        return text
    tail = (width - 1) // 2
    ends = chop_cells(text[::-1], tail)[0][::-1] if tail else ""
    return chop_cells(text, width - 1 - cell_len(ends))[0] + "…" + ends
