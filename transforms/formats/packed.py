"""Sources of text that may be packed, by gzip or zstd, and what a file is by its first bytes."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Source
from tagmill.transforms.formats.streams import PieceStream

CHUNK = 1 << 20

HEAD_BYTES = 64 << 10
"""How much of a file is looked at to tell what it is."""

BLANK = b"\xef\xbb\xbf \t\r\n"
"""Bytes that may stand before the first line of a text."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

_OTHERS = {
    b"PAR1": "Parquet: use format parquet",
    b"ARROW1": "Arrow: write it as Parquet and use format parquet",
    b"PK\x03\x04": "a zip: unpack it, or pack the file in it with gzip or zstd",
    b"BZh": "packed by bzip2: unpack it, or pack it with gzip or zstd",
    b"\xfd7zXZ": "packed by xz: unpack it, or pack it with gzip or zstd",
    b"7z\xbc\xaf": "packed by 7-Zip: unpack it, or pack it with gzip or zstd",
    b"\xff\xd8\xff": "a JPEG: use format folder for the folder that holds it",
    b"\x89PNG": "a PNG: use format folder for the folder that holds it",
    b"\xff\xfe": "UTF-16: write it as UTF-8",
    b"\xfe\xff": "UTF-16: write it as UTF-8",
}
"""What files that no format of text reads begin with, and what to do with them."""

_TAR = slice(257, 262), b"ustar"


def open_text(stream: Any, source: Source, config: InputConfig) -> "Ahead":
    """Read a source of text as plain bytes, unpacked as it is read; `stream` has `read`.

    Reading raises DataError where a packed file is cut or damaged. Raises ConfigError, which names the
    format to use, for what is no text.
    """
    first = Ahead(stream)
    head = first.peek(HEAD_BYTES)
    if head.startswith((_GZIP, _ZSTD)):
        first = Ahead(PieceStream(_unpacked(first, source, is_gzip=head.startswith(_GZIP))))
        head = first.peek(HEAD_BYTES)
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise wrong_format(source, config, what)
    if head[_TAR[0]] == _TAR[1]:
        raise wrong_format(source, config, "a tar: use format webdataset, for tars that are not packed")
    return first


def wrong_format(source: Source, config: InputConfig, what: str) -> ConfigError:
    """Make the error of a file of another format; `what` says which, and what to do."""
    return ConfigError(f"input {config.name}: {source.uri} is {what}")


class Ahead(io.RawIOBase):
    """A stream whose first bytes can be looked at before they are read.

    `failure` is what the stream below raised, if it did.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._head = b""
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """Say that this is for reading."""
        return True

    def peek(self, size: int) -> bytes:
        """Give the next bytes, `size` of them or as many as there are."""
        while len(self._head) < size and (piece := self._stream.read(size - len(self._head))):
            self._head += piece
        return self._head

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        if self._head and size >= 0:
            head, self._head = self._head[:size], self._head[size:]
            return head
        try:
            data: bytes = self._stream.read(size)
        except Exception as error:
            self.failure = error
            raise
        return data

    def readinto(self, buffer: Any) -> int:
        """Read as much as the buffer holds, for what wraps this stream."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _unpacked(stream: Ahead, source: Source, *, is_gzip: bool) -> Iterator[bytes]:
    reader: Any
    if is_gzip:
        reader = gzip.GzipFile(fileobj=stream)
    else:
        reader = pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")
    try:
        while piece := reader.read(CHUNK):
            yield piece
    except (OSError, EOFError, zlib.error) as error:
        if stream.failure is not None:  # of the disk or the connection, not of what it holds
            raise
        detail = f"{source.path} is cut or damaged, as it is unpacked ({error})"
        raise DataError(Reason.SOURCE_TRUNCATED, detail) from error
