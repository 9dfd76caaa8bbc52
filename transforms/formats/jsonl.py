"""Reads JSON lines beside a folder of images.

One object a line: the path of an image relative to the folder, captions, labels; anything else is kept as
meta. `fields.py` says which fields they are.
The key is the `key` field, or the image's path without its extension.
"""

from collections.abc import Iterator

from tagmill.tag_system.core.errors import DataError
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.fields import (
    caption_names,
    captions_of,
    image_name,
    no_image,
    parse_object,
)
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
        for number, line in enumerate(_lines(stream, limits.line[0]), start=1):
            if line is None or line.strip():
                where = f"{source.path}:{number}"
                try:
                    yield _example(line, where, source, config, limits)
                except DataError as error:
                    yield SourceExample.failing(f"{source.path}#{number}", error.reason, error.detail)


def _lines(stream: HashingStream, limit: int) -> Iterator[bytes | None]:
    """Give the lines of a file; None for a line longer than `limit`, which is never held whole."""
    pieces: list[bytes] = []
    size = 0
    while chunk := stream.read(1 << 20):
        first, *others = chunk.split(b"\n")
        for number, piece in enumerate((first, *others)):
            if number:
                yield b"".join(pieces) if size <= limit else None
                pieces, size = [], 0
            size += len(piece)
            if size <= limit:
                pieces.append(piece)
            else:
                pieces.clear()
    if size:
        yield b"".join(pieces) if size <= limit else None


def _example(
    line: bytes | None, where: str, source: Source, config: InputConfig, limits: Limits
) -> SourceExample:
    if line is None:
        most, key, reason = limits.line
        raise DataError(reason, f"{where}: a line longer than {most} bytes ({key})")
    fields = parse_object(line, where)
    name = image_name(fields, config)
    if name is None:
        raise no_image(fields, config, where)
    path = check_path(fields.pop(name), where)
    key = fields.pop("key", None)
    key = key_of(path) if key in (None, "") else str(key)
    captions, used = captions_of(fields, config), caption_names(fields, config)
    load = loader(path, captions, fields, source, limits, config.links, used, seen=(name,))
    return SourceExample(key, load)
