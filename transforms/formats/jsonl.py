"""Reads JSON lines beside a folder of images.

One object a line: `image` (path relative to the folder), captions, labels, anything else is kept as meta.
The key is the `key` field, or the image's path without its extension.
"""

from collections.abc import Iterator

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.fields import captions_of, parse_object
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.image_files import check_path, key_of, loader
from tagmill.transforms.formats.streams import HashingStream


class JsonLines(FileFormat):
    """The format `jsonl`."""

    images_apart = True
    pattern = "*.jsonl"

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a file of JSON lines; see `Format`. Blank lines are passed over."""
        for number, line in enumerate(_lines(stream, limits.max_member_bytes), start=1):
            if line is None or line.strip():
                where = f"{source.path}:{number}"
                try:
                    yield _example(line, where, source, config, limits)
                except DataError as error:
                    yield SourceExample.failing(f"{source.path}#{number}", error.reason, error.detail)


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


def _example(
    line: bytes | None, where: str, source: Source, config: InputConfig, limits: Limits
) -> SourceExample:
    if line is None:
        detail = f"{where}: a line longer than {limits.max_member_bytes} bytes"
        raise DataError(Reason.MEMBER_TOO_LARGE, f"{detail} (ingest.max_member_bytes)")
    fields = parse_object(line, where)
    path = check_path(fields.pop("image", None), where)
    key = fields.pop("key", None)
    key = key_of(path) if key in (None, "") else str(key)
    return SourceExample(key, loader(path, captions_of(fields, config), fields, source, limits))
