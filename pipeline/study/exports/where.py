"""Chooses examples by an expression of DuckDB over what their samples say."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import one_line

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
"""The columns that an expression may name; `tags` are those of the chosen verdicts, `license` is
null where it is not known, `meta` is JSON."""

_ROW = "tagmill_row"


def row_of(one: ChosenExample) -> dict[str, Any]:
    """Give what `COLUMNS` says of an example."""
    sample = one.sample
    plain = ("key", "split", "width", "height", "orientation", "format", "sha256", "license", "meta")
    return {name: getattr(sample, name) for name in plain} | {
        "captions": one.captions,
        "labels": [label.name for label in sample.labels],
        "tags": [tag.name for tag in one.tags],
    }


class WhereFilter:
    """An expression; files and settings are out of its reach.

    Raises ConfigError for one that DuckDB refuses, and ModuleNotFoundError where DuckDB is not installed.
    """

    def __init__(self, expression: str) -> None:
        import duckdb

        self._expression, self._error = expression, duckdb.Error
        safe: dict[str, str | bool | int | float | list[str]] = {
            "enable_external_access": "false",
            "threads": "1",
        }
        self._connection = duckdb.connect(config=safe)
        self._connection.execute("SET lock_configuration = true")
        self.chosen([])

    def chosen(self, examples: Sequence[ChosenExample]) -> list[ChosenExample]:
        """Give the examples of which the expression is true, in their order."""
        table = pa.Table.from_pylist(list(map(row_of, examples)), COLUMNS)
        table = table.append_column(_ROW, pa.array(range(len(examples)), pa.int64()))
        try:
            found = self._connection.from_arrow(table).filter(self._expression).project(_ROW).fetchall()
        except self._error as error:
            raise ConfigError(
                f"--where {self._expression!r}: {one_line(str(error))[:500]}; it may name the columns "
                f"{', '.join(COLUMNS.names)}"
            ) from error
        return [examples[row] for row in sorted(row for (row,) in found)]
