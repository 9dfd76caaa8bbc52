"""A truth: the tags that labelled images show, as Parquet or as JSON lines. One format, read here alone.

A row an image: `key`; `tags`, the names of what it shows; `kinds`, if there, the kind of each tag; `absent`,
if there, what was looked for and is not shown. Without `absent`, what is not among the tags is not shown.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json

LINES = (".jsonl", ".ndjson")
"""How the names of files of JSON lines end; others are Parquet."""


@dataclass(frozen=True)
class LabelledImage:
    """What a row says; no `kinds` if the truth has none, `absent` None if it holds all that is shown."""

    key: str
    tags: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    absent: tuple[str, ...] | None = None


def read_images(uri: str) -> Iterator[LabelledImage]:
    """Give the labelled images of a truth.

    Raises ConfigError if the file is not there or is not a truth, for a row of another form, and for a key
    that another row has.
    """
    seen: set[str] = set()
    rows = _lines(uri) if uri.endswith(LINES) else _rows(uri)
    for where, row in rows:
        image = _image(where, row)
        if image.key in seen:
            raise ConfigError(f"{uri} lists {image.key} twice: leave one row")
        seen.add(image.key)
        yield image


def _rows(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        source = pa.BufferReader(_bytes(uri))
        optional = [name for name in ("kinds", "absent") if name in pq.read_schema(source).names]
        table = pq.read_table(source, columns=["key", "tags", *optional])
    except (OSError, pa.ArrowException) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"{uri} is not a truth in Parquet with the columns key and tags: {said}") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{uri}: row {number}", row


def _lines(uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_bytes(uri).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ConfigError(f"{uri}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f'{uri}:{number} is not an object: write {{"key": ..., "tags": [...]}}')
        yield f"{uri}: line {number}", row


def _bytes(uri: str) -> bytes:
    try:
        return files.read_bytes(uri)
    except OSError as error:
        raise ConfigError(f"cannot read the truth {uri}: {error.strerror or error}") from error


def _image(where: str, row: dict[str, Any]) -> LabelledImage:
    key, tags = row.get("key"), row.get("tags")
    if not isinstance(key, str):
        raise ConfigError(f"{where} has the key {key!r}, which is not text")
    kinds, absent = row.get("kinds", []), row.get("absent")
    if not _are_names(tags) or not _are_names(kinds):
        raise ConfigError(f"{where}, {key}: tags and kinds should be lists of names")
    if absent is not None and not _are_names(absent):
        raise ConfigError(f"{where}, {key}: absent should be a list of names")
    if "kinds" in row and len(kinds) != len(tags):
        raise ConfigError(f"{where}, {key}: {len(kinds)} kinds for {len(tags)} tags")
    return LabelledImage(key, tuple(tags), tuple(kinds), None if absent is None else tuple(absent))


def _are_names(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
