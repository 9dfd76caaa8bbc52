"""Ranges of bytes of files: local ones by positioned reads, remote ones a batch of requests at a time.

Of a remote file there may be a local copy, which comes and goes.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from tagmill.tag_system.core import files, stores
from tagmill.tag_system.core.errors import DamageError

OPEN_FILES = 128
"""How many files one process keeps open: under the usual limit of 1,024, with room for other workers."""

Range = tuple[str, int, int]
"""Uri, first byte, and the byte after the last."""


class RangeReader:
    """Reads ranges of files in whatever process it finds itself; nothing open is pickled or shared.

    `copies` names the local copies by the uris of their files.
    """

    def __init__(self, copies: Mapping[str, str] | None = None) -> None:
        self._copies = dict(copies or {})
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[str, int] = OrderedDict()
        self._systems: dict[str, tuple[Any, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_copies": self._copies}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._copies = state["_copies"]
        self._start()

    def __del__(self) -> None:
        if self._process == os.getpid():
            self.close()

    def close(self) -> None:
        """Close all files; a later read opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """Read ranges, in their order; what lies past the end of a file is missing.

        Raises DamageError for a file that is gone, OSError for what cannot be read for other reasons.
        """
        if self._process != os.getpid():  # forked: connections belong to the parent
            self._start()
        found: list[bytes] = [b""] * len(ranges)
        remote: dict[int, tuple[Any, list[int]]] = {}
        for place, (uri, start, stop) in enumerate(ranges):
            if (copied := self._read_copy(uri, start, stop)) is not None:
                found[place] = copied
                continue
            fs, path = self._system(uri)
            if isinstance(fs, LocalFileSystem):
                found[place] = self._read_local(path, start, stop)
            else:
                remote.setdefault(id(fs), (fs, []))[1].append(place)
        for fs, places in remote.values():
            paths = [self._system(ranges[place][0])[1] for place in places]
            starts, stops = ([ranges[place][side] for place in places] for side in (1, 2))
            with stores.naming(ranges[places[0]][0]):
                read = fs.cat_ranges(paths, starts, stops)
            for place, data in zip(places, read, strict=True):
                if isinstance(data, Exception):
                    with _there(ranges[place][0]), stores.naming(ranges[place][0]):
                        raise data
                found[place] = data
        return found

    def _read_copy(self, uri: str, start: int, stop: int) -> bytes | None:
        """Read from a copy, if there is one; kept open, one that was removed would still fill the disk."""
        if uri not in self._copies:
            return None
        try:
            file = os.open(self._copies[uri], os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.pread(file, stop - start, start)
        finally:
            os.close(file)

    def _system(self, uri: str) -> tuple[Any, str]:
        if uri not in self._systems:
            self._systems[uri] = files.filesystem(uri)
        return self._systems[uri]

    def _read_local(self, path: str, start: int, stop: int) -> bytes:
        file = self._files.pop(path, None)
        if file is None:
            with _there(path):
                file = os.open(path, os.O_RDONLY)
            while len(self._files) >= OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        self._files[path] = file
        return os.pread(file, stop - start, start)


@contextmanager
def _there(uri: str) -> Iterator[None]:
    """Raise DamageError for a file that is not found within."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamageError(f"{uri} is not there any more: put it back, then go on") from error
