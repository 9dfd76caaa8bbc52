"""Markdown of texts from anywhere: they are shown as they are, and make no link, image or HTML."""

import re
from collections.abc import Iterable

from tagmill.tag_system.core.text import shown

_SIGNS = re.compile(r"[\\`*\[\]<>~&$]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]|(?<=^\d)[.)](?=\s)")
"""What begins markup: an underscore within a word does not, nor do most signs within a line."""

_PIPE = re.compile(r"(\\*)\|")


def plain(text: str) -> str:
    """Write a text as Markdown that shows it, in one line. Addresses in it may become links to themselves."""
    return _SIGNS.sub(lambda match: f"\\{match[0]}", shown(text))


def code(text: str) -> str:
    """Write a text as code within a line, where nothing is markup and no address becomes a link."""
    held = shown(text) or " "
    fence = _fence(held, 1)
    beside = " " if "`" in (held[0], held[-1]) else ""
    return f"{fence}{beside}{held}{beside}{fence}"


def block(text: str, language: str = "") -> str:
    """Write lines as a block of code."""
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table, whose cells are Markdown of one line."""
    names = list(head)
    lines = [names, ["---"] * len(names), *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Keep what parts cells out of one: a pipe behind an odd number of backslashes is escaped already."""
    return _PIPE.sub(lambda match: match[0] if len(match[1]) % 2 else f"{match[1]}\\|", text)


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
