"""HTML for notebooks. Everything is escaped: captions and keys come from anywhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

STAGE_COLUMNS = (
    "stage",
    "generation",
    "parts",
    "examples_in",
    "examples_out",
    "examples_dropped",
    "examples_dead",
)

DECISION_COLUMNS = (
    "tag",
    "kind",
    "verdict",
    "rule",
    "basis",
    "tagger",
    "box_score",
    "own_score",
    "other_tag",
)


def heading(text: str) -> str:
    """Write a line in bold."""
    return f"<p><b>{escape(text)}</b></p>"


def items(texts: Iterable[str]) -> str:
    """Write a list."""
    lines = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{lines}</ul>" if lines else ""


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write the columns of records as a table."""
    head = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in columns)
    body = "".join(f"<tr>{_cells(row, columns)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return "".join(f"<td>{escape(_text(row[column]))}</td>" for column in columns)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
