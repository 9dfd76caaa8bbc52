"""HTML for notebooks: no scripts, nothing from elsewhere, a few kilobytes for each thing that is shown.

Everything is escaped, also what is invisible or turns the direction of reading: captions and keys come from
anywhere.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image as pillow

from tagmill.pipeline.study.mentions import split_mentions
from tagmill.pipeline.study.picture import COLOURS
from tagmill.tag_system.core.text import shown

SIDE = 480
"""Pixels that a picture in a notebook is wide and high at most."""

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

SAMPLE_COLUMNS = ("tag", "kind", "verdict", "rule", "basis")

PREDICTION_COLUMNS = ("tag", "score")


def safe(text: str) -> str:
    """Write a text into a page as it can be read; see `shown`."""
    return escape(shown(text, keep="\n"))


def heading(text: str) -> str:
    """Write a line in bold."""
    return f"<p><b>{safe(text)}</b></p>"


def line(before: str, text: str) -> str:
    """Write a text after what is HTML already."""
    return f"<p>{before} {safe(text)}</p>"


def verdict(name: str) -> str:
    """Write a verdict in its colour, as pictures have it."""
    style = f"background:{COLOURS.get(name, 'grey')};color:white;padding:1px 6px;border-radius:3px"
    return f'<span style="{style}">{safe(name)}</span>'


def picture(image: pillow.Image) -> str:
    """Write an image, made smaller, into the page itself."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=80)
    data = base64.b64encode(sink.getvalue()).decode("ascii")
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" {size} alt="the image">'


def note(text: str) -> str:
    """Write a remark."""
    return f"<p><i>{safe(text)}</i></p>"


def marked(text: str, mentions: Iterable[Mapping[str, Any]]) -> str:
    """Write a caption with the words of some mentions, as records of parse, marked."""
    return "".join(
        f"<mark>{safe(words)}</mark>" if mention else safe(words)
        for words, mention in split_mentions(text, mentions)
    )


def items(texts: Iterable[str]) -> str:
    """Write a list."""
    return listed(map(safe, texts))


def listed(entries: Iterable[str]) -> str:
    """Write a list of what is HTML already."""
    lines = "".join(f"<li>{entry}</li>" for entry in entries)
    return f"<ul>{lines}</ul>" if lines else ""


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write the columns of records as a table."""
    head = "".join(f"<th>{safe(column.replace('_', ' '))}</th>" for column in columns)
    body = "".join(f"<tr>{_cells(row, columns)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return "".join(f"<td>{safe(_text(row[column]))}</td>" for column in columns)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
