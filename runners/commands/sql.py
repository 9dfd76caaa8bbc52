"""`tagmill sql`: a query on the tables of a run, and its answer as a table, as CSV or as JSON lines."""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import duckdb
from rich.console import Console

from tagmill.pipeline.study.tables import ask, open_tables, telling
from tagmill.runners.commands.fitted import Column, FittedTable, shortened
from tagmill.runners.commands.inspection import open_run
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import dump_json
from tagmill.tag_system.sample_tags import short

AT_ONCE = 2_000
"""Rows that are in memory as Python has them."""

LONGEST = 60
"""Characters that the table shows of a value."""


@dataclass(frozen=True)
class SqlRequest:
    """What is asked: of which run, and in what shape the answer is printed. Raises ConfigError."""

    folder: str
    query: str
    rows: int
    as_csv: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.as_csv and self.as_json:
            raise ConfigError("--csv and --json: name one of them")


def show_sql(console: Console, request: SqlRequest) -> None:
    """Print the answer to a query: its first rows as a table, or all of them for a machine.

    Raises ConfigError in one line for a folder that is no run, and a query that cannot be answered.
    """
    run = open_run(request.folder)
    with open_tables(run) as connection, telling(connection):
        answer = ask(connection, request.query)
        columns = [(str(name), str(kind)) for name, kind, *_ in answer.description or ()]
        rows = _rows(answer, [kind for _, kind in columns])
        names = [name for name, _ in columns]
        if request.as_json:
            for row in rows:
                _print(console, dump_json(dict(zip(names, row, strict=True))))
        elif request.as_csv:
            _print(console, _csv(names))
            for row in rows:
                _print(console, _csv(map(_text, row)))
        else:
            _print_table(console, columns, rows, request.rows)


def _print_table(
    console: Console, columns: list[tuple[str, str]], rows: Iterator[list[Any]], most: int
) -> None:
    shown = list(islice(rows, most))
    left = sum(1 for _ in rows)
    table = FittedTable(
        [
            Column(name, any(_is_number(row[place]) for row in shown), may_be_cut=True)
            for place, (name, _) in enumerate(columns)
        ]
    )
    for row in shown:
        table.add_row(*(shortened(_text(value), LONGEST) for value in row))
    console.print(table)
    if left:
        _print(console, f"{left:,} more rows are left out; --rows N shows more, --csv or --json all")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(answer: duckdb.DuckDBPyConnection, kinds: list[str]) -> Iterator[list[Any]]:
    """Fetch the rows, a few at a time, with values that JSON has."""
    while some := answer.fetchmany(AT_ONCE):
        for row in some:
            yield [_plain(value, kind) for value, kind in zip(row, kinds, strict=True)]


def _plain(value: Any, kind: str = "") -> Any:
    """Give a value as JSON has it; a number of single precision with the digits that it has."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return short(value) if kind == "FLOAT" else value
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else dump_json(value)


def _csv(values: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
