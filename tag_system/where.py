"""Chooses examples by an expression of DuckDB over what their samples say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import one_line, parse_json

_TEXTS = pa.list_(pa.string())

COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int32()),
        ("format", pa.string()),
        ("sha256", pa.string()),
        ("captions", _TEXTS),
        ("labels", _TEXTS),
        ("tags", _TEXTS),
        ("license", pa.string()),
        ("meta", pa.string()),
    ]
)
"""The columns that an expression may name; `tags` are those of the chosen verdicts, `license` is null where
it is not known, `meta` is JSON."""

_ROW = "tagmill_row"

_CLOCK = frozenset(("age", "now", "today", "localtime", "localtimestamp", "transaction_timestamp"))
"""Functions of the time at which they are called; so are those that begin as `_CLOCKS`."""

_CLOCKS = ("current_", "get_current_", "txid_")


class WhereFilter:
    """An expression; files, tables and settings are out of its reach.

    Args:
        expression: The expression. What it says of null counts as false.
        name: The option or key that it comes from, for messages.
        is_lasting: Whether it must say the same of an example whenever it is asked.

    Raises:
        ConfigError: DuckDB refuses it, or what it says does not last.
        ModuleNotFoundError: DuckDB is not installed.
    """

    def __init__(self, expression: str, name: str, *, is_lasting: bool = False) -> None:
        import duckdb

        self._expression, self._name, self._error = expression, name, duckdb.Error
        safe: dict[str, str | bool | int | float | list[str]] = {
            "enable_external_access": "false",
            "threads": "1",
        }
        self._connection = duckdb.connect(config=safe)
        self._connection.execute("SET python_enable_replacements = false")
        self._connection.execute("SET TimeZone = 'UTC'")  # not that of the machine
        self._connection.execute("SET lock_configuration = true")
        try:
            self._connection.from_arrow(COLUMNS.empty_table()).filter(expression).fetchall()
            if is_lasting and (changing := sorted(set(self._changing()))):
                raise ConfigError(
                    f"{name} {expression!r}: {changing[0]} says another thing each time; a run that is made "
                    "again must choose the same examples"
                )
        except self._error as error:
            raise ConfigError(self._said(error)) from error

    def chosen(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Give the indexes of the rows, which have `COLUMNS`, of which the expression is true."""
        try:
            return self._chosen(rows)
        except self._error as error:
            raise ConfigError(self._said(error, self._first_failing(rows))) from error

    def _chosen(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        table = pa.Table.from_pylist(list(rows), COLUMNS)
        table = table.append_column(_ROW, pa.array(range(len(rows)), pa.int64()))
        found = self._connection.from_arrow(table).filter(self._expression).project(_ROW).fetchall()
        return sorted(row for (row,) in found)

    def _first_failing(self, rows: Sequence[Mapping[str, Any]]) -> str:
        for row in rows:
            try:
                self._chosen([row])
            except self._error:
                return f", of the example {row['key']}"
        return ""

    def _said(self, error: Exception, place: str = "") -> str:
        why = one_line(str(error))[:500]
        columns = ", ".join(COLUMNS.names)
        return f"{self._name} {self._expression!r}{place}: {why}; it may name the columns {columns}"

    def _changing(self) -> Iterator[str]:
        """Name the functions in the expression that give another answer each time."""
        query = f"SELECT 1 WHERE {self._expression}"
        (text,) = self._connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0]
        tree = parse_json(text)
        if tree["error"]:  # nobody could tell what it calls
            raise ConfigError(f"{self._name} {self._expression!r}: {tree['error_message']}")
        called = set(_names(tree))
        listed = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE'"
        volatile = {name for (name,) in self._connection.execute(listed).fetchall()}
        for name in called:
            if name in volatile or name in _CLOCK or name.startswith(_CLOCKS):
                yield name


def _names(tree: Any) -> Iterator[str]:
    """Name what a parsed query calls, and what it refers to: a clock may be written as a column."""
    if isinstance(tree, dict):
        if name := tree.get("function_name"):
            yield name.lower()
        for name in tree.get("column_names") or ():
            yield name.lower()
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _names(part)
