"""Image bytes that ingest copies into the run: those of sources in which no image can be read by itself.

The copies of a part are one file beside it, `NAME.images`, image after image. The part's header has its
digest, so that it is verified, taken over and removed with the part. This file alone knows how copies are
written and referred to.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tagmill.tag_system.core import files

SUFFIX = ".images"

CHUNK = 1 << 20

KIND = "copy"
"""Kind of a reference into a file of copies; a format gives it without a place, see `wanted`."""


def uri_of(folder: str, part: str) -> str:
    """Name the file of a part's copies in a generation's folder."""
    return files.join(folder, part + SUFFIX)


def wanted() -> dict[str, Any]:
    """Give the reference of an image that is to be copied."""
    return {"kind": KIND, "uri": "", "offset": 0, "size": 0}


class Copies:
    """Writes the copies of one part to a local file, which the part's commit takes."""

    def __init__(self, folder: str, part: str) -> None:
        self._uri, self._name = uri_of(folder, part), part + SUFFIX
        self._stack = ExitStack()
        self._sink: IO[bytes] | None = None
        self._path: Path | None = None
        self._size = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> "Copies":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def placed(self, reference: dict[str, Any], data: bytes) -> dict[str, Any]:
        """Copy an image if its reference asks for it, and give the reference to use."""
        if reference["kind"] != KIND:
            return reference
        if self._sink is None:
            self._path = self._stack.enter_context(files.local_scratch(self._uri))
            self._sink = self._stack.enter_context(open(self._path, "wb"))  # noqa: SIM115  # closed by the stack
        self._sink.write(data)
        self._digest.update(data)
        self._size += len(data)
        return {"kind": KIND, "uri": self._name, "offset": self._size - len(data), "size": len(data)}

    def commit(self) -> str | None:
        """Make the file one of the run; gives its sha256, None if nothing was copied."""
        if self._sink is None or self._path is None:
            return None
        self._sink.close()
        files.create_from(self._uri, self._path)
        return self._digest.hexdigest()


def blank(folder: str, part: str, references: Iterable[dict[str, Any]]) -> str:
    """Write zeros over some images of a part, as far as they are copies; gives the sha256 of the file, in
    which others stay where they are. For the one driver of a run.
    """
    uri = uri_of(folder, part)
    copied = [reference for reference in references if reference["kind"] == KIND]
    holes = sorted((reference["offset"], reference["size"]) for reference in copied)
    digest = hashlib.sha256()
    with files.open_read(uri) as source, files.replacing(uri) as path, open(path, "wb") as sink:
        for data in _pieces(source, holes):
            sink.write(data)
            digest.update(data)
    return digest.hexdigest()


def _pieces(source: IO[bytes], holes: list[tuple[int, int]]) -> Iterator[bytes]:
    """Give a file's bytes, and zeros for those in holes."""
    place = 0
    for offset, size in [*holes, (sys.maxsize, 0)]:
        while place < offset and (piece := source.read(min(CHUNK, offset - place))):
            place += len(piece)
            yield piece
        while place < offset + size and (piece := source.read(min(CHUNK, offset + size - place))):
            place += len(piece)
            yield bytes(len(piece))


def resolve(records: list[dict[str, Any]], part_uri: str) -> None:
    """Make references of a part's rows to its copies whole: where the run's folder is now."""
    folder = part_uri.rpartition("/")[0]
    for record in records:
        if record["image"]["kind"] == KIND:
            record["image"]["uri"] = files.join(folder, record["image"]["uri"])
