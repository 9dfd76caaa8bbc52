"""Reads CSV and TSV with an image and a caption a line; the first line names the columns.

A cell that is a JSON list or object is read as one. In the column of labels, names are divided by `|` or `;`.
TSV knows no quotes, but for a cell that is quoted whole, as pandas writes it.
"""

import csv
import json
import re
from collections.abc import Iterator
from typing import Any

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source
from tagmill.transforms.formats.fields import check_object, without_doubles
from tagmill.transforms.formats.packed import Ahead, wrong_format
from tagmill.transforms.formats.text_lines import bounded_lines
from tagmill.transforms.formats.text_tables import Entry, Group, TextTable
from tagmill.transforms.formats.url_lists import is_url, no_header_error

MAX_QUOTED_LINES = 100
"""Lines that one cell in quotes may have; a quote that nobody closes would take in all that follow."""

_NAMES = re.compile(r"\s*[|;]\s*")
_NUMBERS = ("width", "height")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class CsvTable(TextTable):
    """The format `csv`."""

    pattern = "*.csv"
    url_format = "csv"
    delimiter = ","

    def __init__(
        self, delimiter: str | None = None, columns: list[str] | None = None, group: Group = "adjacent"
    ) -> None:
        """Make the format; `columns` are the names where no line of the file has them."""
        super().__init__(group)
        self._delimiter = self.delimiter if delimiter is None else delimiter
        self._columns = columns
        if len(self._delimiter) != 1 or self._delimiter in '\r\n"':
            raise ValueError(f"delimiter is one character, got {delimiter!r}")

    def entries(self, text: Ahead, source: Source, config: InputConfig, limits: Limits) -> Iterator[Entry]:
        """Give the lines, with their cells by column; empty cells are left out."""
        rows = self._rows(text, source, limits)
        names = self._columns
        for number, cells, size in rows:
            if names is None:
                names = self._header(cells, source, config)
            elif isinstance(cells, DataError):
                yield Entry(number, cells, size)
            elif cells and cells != [""]:
                where = f"{source.path}:{number}"
                try:
                    yield Entry(number, _fields(names, cells, where, config), size)
                except DataError as error:
                    yield Entry(number, error, size)

    def _header(self, cells: list[str] | DataError, source: Source, config: InputConfig) -> list[str]:
        """Read the names of the columns. Raises DataError, and ConfigError for a file of another format."""
        if isinstance(cells, DataError):
            raise DataError(Reason.SOURCE_UNREADABLE, f"no names of columns: {cells.detail}")
        names = [cell.strip() for cell in cells]
        if names and names[0].startswith(("{", "[")):
            what = "JSON lines: use format jsonl" if names[0].startswith("{") else "JSON: use format json"
            raise wrong_format(source, config, what)
        if any(map(is_url, names)):
            raise no_header_error(source, config)
        if len(names) == 1:
            (name,) = names
            if self._delimiter != "\t" and "\t" in name:
                raise wrong_format(source, config, "TSV: use format tsv")
            for other in ",;|":
                if other in name and other != self._delimiter:
                    how = (
                        "use format csv"
                        if other == ","
                        else f"use format csv, options {{delimiter: {other!r}}}"
                    )
                    raise wrong_format(source, config, f"CSV with {other!r} between its cells: {how}")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(Reason.SOURCE_UNREADABLE, f"{source.path} has two columns {twice[:80]!r}")
        return names

    def _rows(
        self, text: Ahead, source: Source, limits: Limits
    ) -> Iterator[tuple[int, list[str] | DataError, int]]:
        """Give the number of each row's first line, its cells, and its size."""
        most, key, reason = limits.line
        lines = _Lines(bounded_lines(text, most))
        for number, line in lines:
            if line is None:
                detail = f"{source.path}:{number}: a line longer than {most} bytes ({key})"
                yield number, DataError(reason, detail), most
                continue
            try:
                cells = self._cells(line, lines, most)
            except (csv.Error, ValueError) as error:
                lines.give_back()
                detail = f"{source.path}:{number}: {error}"
                yield number, DataError(Reason.RECORD_INVALID, detail), len(line)
            else:
                yield number, cells, len(line) + lines.size

    def _cells(self, line: str, lines: "_Lines", most: int) -> list[str]:
        """Divide a row, with the lines that follow if a quote is open. Raises csv.Error and ValueError."""
        lines.begin(most)
        try:
            return next(csv.reader(_first(line, lines.following()), delimiter=self._delimiter, strict=True))
        except csv.Error:
            if lines.size or line.count('"') % 2:
                raise
            return next(csv.reader([line], delimiter=self._delimiter))  # "as" said in a cell, no more


class TsvTable(CsvTable):
    """The format `tsv`."""

    pattern = "*.tsv"
    url_format = "tsv"
    delimiter = "\t"

    def _cells(self, line: str, lines: "_Lines", most: int) -> list[str]:
        lines.begin(most)
        cells = line.rstrip("\r").split(self._delimiter)
        return [cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell for cell in cells]


def _first(line: str, others: Iterator[str]) -> Iterator[str]:
    yield line + "\n"
    yield from others


class _Lines:
    """Numbered lines as text; some that were taken can be given back. None is one that is too long."""

    def __init__(self, found: Iterator[bytes | None]) -> None:
        self._found = found
        self._number = 0
        self._back: list[tuple[int, str | None]] = []
        self._taken: list[tuple[int, str | None]] = []
        self._most = 0
        self.size = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> tuple[int, str | None]:
        if self._back:
            return self._back.pop()
        self._number += 1
        data = next(self._found)
        encoding = "utf-8-sig" if self._number == 1 else "utf-8"
        return self._number, None if data is None else data.decode(encoding, "surrogateescape")

    def begin(self, most: int) -> None:
        """Begin a row that may take lines of up to `most` characters in all."""
        self._taken, self._most, self.size = [], most, 0

    def following(self) -> Iterator[str]:
        """Take the lines that follow. Raises ValueError for more than a row may have."""
        for number, line in self:
            self._taken.append((number, line))
            self.size += len(line or "")
            if line is None or self.size > self._most or len(self._taken) > MAX_QUOTED_LINES:
                raise ValueError(f"a quote that is not closed within {MAX_QUOTED_LINES} lines")
            yield line + "\n"

    def give_back(self) -> None:
        """Give back what was taken after the row's first line: it holds rows of its own."""
        self._back += reversed(self._taken)
        self._taken = []


def _fields(names: list[str], cells: list[str], where: str, config: InputConfig) -> dict[str, Any]:
    """Give the cells of a row by column. Raises DataError for more cells than columns."""
    if len(cells) > len(names):
        raise DataError(Reason.RECORD_INVALID, f"{where}: {len(cells)} cells in {len(names)} columns")
    pairs = zip(names, cells, strict=False)
    return check_object({name: _value(name, cell, config) for name, cell in pairs if cell.strip()}, where)


def _value(name: str, cell: str, config: InputConfig) -> Any:
    text = cell.strip()
    if text[0] in "[{" and text[-1] in "]}":
        try:
            return json.loads(text, parse_constant=lambda _: None, object_pairs_hook=without_doubles)
        except (ValueError, RecursionError):
            return cell
    if name == config.labels:
        return [part for part in _NAMES.split(text) if part]
    if name in _NUMBERS and text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    return cell
