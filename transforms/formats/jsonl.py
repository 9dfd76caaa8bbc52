"""Reads JSON lines beside a folder of images.

One object a line: `image` (path relative to the folder), captions, labels, anything else is kept as meta.
The key is the `key` field, or the image's path without its extension.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import (
    HashingStream,
    InputConfig,
    Limits,
    Record,
    Source,
    SourceExample,
    captions_of,
    parse_object,
    why_missing,
)


def read(
    stream: HashingStream, source: Source, config: InputConfig, limits: Limits
) -> Iterator[SourceExample]:
    """Give the examples of a file of JSON lines; see `Reader`. Blank lines are passed over."""
    for number, line in enumerate(_lines(stream, limits.max_member_bytes), start=1):
        if line is None or line.strip():
            where = f"{source.path}:{number}"
            try:
                yield _example(line, where, source, config, limits)
            except DataError as error:
                yield SourceExample(f"{source.path}#{number}", partial(_raise, error))


def _lines(stream: HashingStream, limit: int) -> Iterator[bytes | None]:
    """Give the lines of a file; None for a line longer than `limit`, which is never held whole."""
    pending = b""
    skipping = False
    while chunk := stream.read(1 << 20):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            yield None if skipping or len(line) > limit else line
            skipping = False
        if len(pending) > limit:
            pending, skipping = b"", True
    if pending or skipping:
        yield None if skipping else pending


def _raise(error: DataError) -> Record:
    raise error


def _example(
    line: bytes | None, where: str, source: Source, config: InputConfig, limits: Limits
) -> SourceExample:
    if line is None:
        detail = f"{where}: a line longer than {limits.max_member_bytes} bytes"
        raise DataError(Reason.MEMBER_TOO_LARGE, f"{detail} (ingest.max_member_bytes)")
    fields = parse_object(line, where)
    path = fields.pop("image", None)
    if not isinstance(path, str) or not path:
        raise DataError(Reason.RECORD_INVALID, f"{where}: no image path in the field `image`")
    if path.startswith("/") or ":" in path or ".." in PurePosixPath(path).parts:
        detail = f"{where}: {path!r} leaves the image folder; write it relative to `images`"
        raise DataError(Reason.RECORD_INVALID, detail)
    if not _is_file_name(path):
        raise DataError(Reason.RECORD_INVALID, f"{where}: no file can be called {path[:80]!a}")
    key = fields.pop("key", None)
    key = str(PurePosixPath(path).with_suffix("") if key in (None, "") else key)
    return SourceExample(key, partial(_load, path, fields, source, config, limits))


def _is_file_name(path: str) -> bool:
    try:
        names = [name.encode() for name in PurePosixPath(path).parts]
    except UnicodeEncodeError:
        return False
    return bool(names) and all(len(name) <= 255 and b"\0" not in name for name in names)


def _load(path: str, fields: dict[str, Any], source: Source, config: InputConfig, limits: Limits) -> Record:
    uri = files.join(source.images, path)
    try:
        size = files.size_and_stamp(uri)[0]
        if size > limits.max_member_bytes:
            detail = f"{path}: {size} bytes; the limit is {limits.max_member_bytes}"
            raise DataError(Reason.MEMBER_TOO_LARGE, f"{detail} (ingest.max_member_bytes)")
        data = files.read_bytes(uri)
    except OSError as error:
        detail = f"{path[:200]} in {source.images}: {why_missing(error)}"
        raise DataError(Reason.IMAGE_MISSING, detail) from error
    reference = {"kind": "file", "uri": path, "offset": 0, "size": len(data)}
    return Record(reference, data, captions_of(fields, config), fields)
