"""The base of formats whose source is a file with others that belong to it, passed through as one stream.

So one digest speaks for all of them. A source of one file is passed through as it is; of several, each is
preceded by its length.
"""

import hashlib
import io
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import IO, Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, InputChangedError
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.streams import HashingStream, PieceStream, StreamPart

CHUNK = 1 << 20
LENGTH_BYTES = 8


class SeveralFiles(FileFormat):
    """A format of files; `others` are the uris of those that are read with an input's one file, by option.

    With `of_each`, they are read with each of its files.
    """

    of_each = False

    def __init__(self, others: dict[str, str | None]) -> None:
        for option, uri in others.items():
            if uri is not None and not isinstance(uri, str):
                raise ValueError(f"{option} is the path of a file, got {uri!r}")
        self.others = {option: uri for option, uri in others.items() if uri is not None}

    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """List the files that match the input's path; see `Format`. With others, it is one, or `of_each`."""
        root, paths = super().find_sources(config)
        if self.others and len(paths) > 1 and not self.of_each:
            raise ConfigError(
                f"input {config.name}: {', '.join(self.others)} of `options` belong to one file, "
                f"but {len(paths)} match {', '.join(config.paths)}: give each an input of its own"
            )
        for option, uri in self.others.items():
            if not files.exists(uri) or files.is_folder(uri) or files.is_special(uri):
                raise ConfigError(f"input {config.name}: no file {uri}, which the option {option} names")
        return root, paths

    def size_and_stamp(self, uri: str) -> tuple[int, str]:
        """Ask the file system; see `Format`. Of several files: the sum, and what changes with any of them."""
        if not self.others:
            return super().size_and_stamp(uri)
        told = [self._told[one] if one in self._told else files.size_and_stamp(one) for one in self.uris(uri)]
        return sum(size for size, _ in told), hashlib.sha256(repr(told).encode()).hexdigest()

    @cached_property
    def _told(self) -> dict[str, tuple[int, str]]:
        return {one: files.size_and_stamp(one) for one in self.others.values()}

    @contextmanager
    def open_read(self, uri: str) -> Iterator[IO[bytes]]:
        """Open the files as one stream; see `Format`."""
        if not self.others:
            with files.open_read(uri) as stream:
                yield stream
            return
        if files.is_special(uri):
            raise files.SpecialFileError(f"{uri} is no regular file")
        with closing(_framed(self.uris(uri))) as pieces:
            yield io.BufferedReader(PieceStream(pieces), CHUNK)

    def uris(self, uri: str) -> list[str]:
        """Name the files of a source in the order of their stream: the input's own, then the others."""
        return [uri, *self.others.values()]

    def streams(self, stream: HashingStream) -> Iterator[Any]:
        """Give the files of a source, each to be read before the next, in the order of `uris`."""
        if not self.others:
            yield stream
            return
        while length := stream.read(LENGTH_BYTES):
            body = StreamPart(stream, int.from_bytes(length))
            yield body
            body.skip()


def _framed(uris: list[str]) -> Generator[bytes]:
    for uri in uris:
        with files.opened(uri) as found:
            yield found.size.to_bytes(LENGTH_BYTES)
            left = found.size
            while left and (piece := found.stream.read(min(left, CHUNK))):
                left -= len(piece)
                yield piece
            if left:
                raise InputChangedError(f"{uri} changed while it was read; run again")
