"""Reads JSON lines beside a folder of images.

One object a line: the path of an image relative to the folder, captions, labels; anything else is kept as
meta. `fields.py` says which fields they are. The key is the `key` field, or the image's path without its
extension.
"""

from collections.abc import Iterator
from typing import Any

from tagmill.tag_system.core.errors import DataError
from tagmill.transforms.formats.base import InputConfig, Limits, Source
from tagmill.transforms.formats.fields import parse_object
from tagmill.transforms.formats.packed import BLANK, HEAD_BYTES, Ahead, wrong_format
from tagmill.transforms.formats.text_lines import bounded_lines, other_format
from tagmill.transforms.formats.text_tables import Entry, TextTable


class JsonLines(TextTable):
    """The format `jsonl`."""

    pattern = "*.jsonl"
    url_format = "jsonl"

    def entries(self, text: Ahead, source: Source, config: InputConfig, limits: Limits) -> Iterator[Entry]:
        """Give the objects of a file of JSON lines. Blank lines are passed over."""
        if what := _other(text.peek(HEAD_BYTES)):
            raise wrong_format(source, config, what)
        most, key, reason = limits.line
        for number, line in enumerate(bounded_lines(text, most), start=1):
            where = f"{source.path}:{number}"
            if line is None:
                detail = f"{where}: a line longer than {most} bytes ({key})"
                yield Entry(number, DataError(reason, detail), most)
            elif line.strip():
                yield Entry(number, _parsed(line, where), len(line))


def _parsed(line: bytes, where: str) -> dict[str, Any] | DataError:
    try:
        return parse_object(line, where)
    except DataError as error:
        return error


def _other(head: bytes) -> str | None:
    """Say what a file is that begins as another format does; None for what may be a line that is damaged."""
    first, _, rest = head.lstrip(BLANK).partition(b"\n")
    line = first.strip()
    if line.startswith((b"[{", b"[ {")) or (line == b"[" and rest.lstrip().startswith(b"{")):
        return "a JSON list: use format json"
    if line == b"{" and rest.lstrip().startswith(b'"'):
        return "JSON over several lines: use format json, or coco"
    return other_format(line)
