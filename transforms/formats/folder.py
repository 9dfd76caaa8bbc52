"""Reads a folder of images, and the folders in it; captions lie beside an image in a text file of its name.

Each folder that holds images is one source. It is passed through as one stream, like an archive: for each
image a frame of its header, its bytes and those of its captions. So one digest speaks for all of the folder.
The key is the image's path without extension, or with it where two images differ in nothing else. Each
line of KEY.txt is a caption. Names are sorted; those that begin with a dot, and linked folders, are passed
over. The frame of a linked file says where it leads, and the reader whether that is allowed. The names of
one folder are held in memory, and one image at a time.
"""

import hashlib
import io
import json
import os
import posixpath
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import IO, Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, InputChangedError, Reason
from tagmill.tag_system.core.text import lines
from tagmill.transforms.formats.base import (
    IMAGE_EXTENSIONS,
    Format,
    InputConfig,
    Limits,
    Record,
    Source,
    SourceExample,
    check_link,
    why_missing,
)
from tagmill.transforms.formats.streams import HashingStream, PieceStream

CHUNK = 1 << 20

MAX_FILE_BYTES = 1 << 30
"""A larger file is not passed through at all: one full of holes may claim to have any size."""

LENGTH_BYTES = 8


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    stamp: str


@dataclass(frozen=True)
class _Frame:
    """The header of an image in the stream: sizes in bytes; `problem` says why there is nothing to read.

    `links` are the files of the two that are links: name -> where they lead, relative to their folder.
    """

    key: str
    name: str
    size: int
    captions_size: int | None = None
    problem: str | None = None
    links: dict[str, str] = field(default_factory=dict)


def find_folders(root: str) -> Iterator[str]:
    """List the folders that hold images, relative to `root` ("." is itself), in a fixed order.

    Raises OSError for a folder that cannot be listed.
    """
    waiting = ["."]
    while waiting:
        path = waiting.pop()
        entries = _entries(_uri(root, path))
        if any(_is_image(entry["name"]) for entry in entries if entry["type"] == "file"):
            yield path
        folders = (_name(entry) for entry in entries if entry["type"] == "directory")
        waiting += [posixpath.normpath(posixpath.join(path, name)) for name in sorted(folders, reverse=True)]


class Folder(Format):
    """The format `folder`."""

    version = 2
    images_apart = False

    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """List the folders that hold images; see `Format`."""
        if not files.is_folder(config.path):
            raise ConfigError(f"input {config.name}: {config.path} is not a folder")
        try:
            found = list(find_folders(config.path))
        except OSError as error:
            raise ConfigError(
                f"input {config.name}: cannot list {error.filename or config.path} ({error.strerror})"
            ) from error
        if not found:
            raise ConfigError(f"input {config.name}: no image in {config.path} or the folders in it")
        for name in found:
            if not name.isprintable():
                raise ConfigError(
                    f"input {config.name}: rename the folder {name!a}: its name cannot be printed"
                )
        return files.absolute(config.path), found

    def size_and_stamp(self, uri: str) -> tuple[int, str]:
        """Tell the bytes of a folder's images and captions, and what changes when any is rewritten."""
        listed = [asdict(file) for pair in _pairs(uri) for file in pair if file]
        stamp = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        return sum(file["size"] for file in listed), stamp

    @contextmanager
    def open_read(self, uri: str) -> Iterator[IO[bytes]]:
        """Open a folder as one stream. Reading raises InputChangedError if a file changes meanwhile."""
        with closing(_frames(uri)) as chunks:
            yield io.BufferedReader(PieceStream(chunks), CHUNK)

    def image_folder(self, root: str, uri: str) -> str:
        """Images lie below the root; see `Format`."""
        return root

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a folder; see `Format`."""
        folder = posixpath.normpath(source.path)
        while length := stream.read(LENGTH_BYTES):
            frame = _Frame(**json.loads(stream.read(int.from_bytes(length))))
            body = _Body(stream, frame.size + (frame.captions_size or 0))
            path, key = (posixpath.normpath(posixpath.join(folder, name)) for name in (frame.name, frame.key))
            if frame.problem:
                yield SourceExample.failing(key, Reason.IMAGE_MISSING, f"{path}: {frame.problem}")
            else:
                yield SourceExample(key, partial(_load, body, frame, source, config, limits))
            body.skip()


class _Body:
    """What follows a header, read once: examples that nobody loads are passed over."""

    def __init__(self, stream: HashingStream, size: int) -> None:
        self._stream = stream
        self._left = size

    def take(self, size: int) -> bytes:
        self._left -= size
        return self._stream.read(size)

    def skip(self) -> None:
        while self._left:
            self.take(min(self._left, CHUNK))


def _load(body: _Body, frame: _Frame, source: Source, config: InputConfig, limits: Limits) -> Record:
    folder = posixpath.normpath(source.path)
    path = posixpath.normpath(posixpath.join(folder, frame.name))
    for name, link in frame.links.items():
        target = posixpath.normpath(posixpath.join(folder, link))
        check_link(posixpath.join(source.path, name), target, source.root, config.links)
    limits.check(path, frame.size)
    limits.check_record(f"the captions of {path}", frame.captions_size or 0)
    reference = {"kind": "file", "uri": path, "offset": 0, "size": frame.size}
    record = Record(reference, body.take(frame.size), seen=(frame.name.rpartition(".")[2].lower(),))
    if frame.captions_size is not None:
        record.seen += ("txt",)
        record.used = ("txt",)
        record.captions = _captions(body.take(frame.captions_size))
    return record


def _captions(data: bytes) -> list[str | bytes]:
    """Split a text into captions, a line each; what is empty or no UTF-8 is left for ingest to refuse."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return [data]
    return [line for line in lines(text) if line.strip()] or [text]


def _frames(uri: str) -> Generator[bytes]:
    pairs = _pairs(uri)
    real = os.path.realpath(files.filesystem(_folder(uri))[1])
    stems = Counter(_stem(image.name) for image, _ in pairs)
    for image, text in pairs:
        key = _stem(image.name) if stems[_stem(image.name)] == 1 else image.name
        with ExitStack() as stack:
            try:
                opened = [
                    (file, stack.enter_context(files.opened(files.join(_folder(uri), file.name))))
                    for file in (image, text)
                    if file
                ]
            except OSError as error:
                yield _header(_Frame(key, image.name, 0, problem=why_missing(error)))
                continue
            large = [file for file, _ in opened if file.size > MAX_FILE_BYTES]
            if large:
                problem = f"{large[0].name} has {large[0].size} bytes: no image or text is that large"
                yield _header(_Frame(key, image.name, 0, problem=problem))
                continue
            links = {file.name: link for file, found in opened if (link := _link(found, file, real))}
            captions_size = text.size if text else None
            yield _header(_Frame(key, image.name, image.size, captions_size, links=links))
            for file, found in opened:
                yield from _checked(found, file, uri)


def _link(found: files.Opened, file: _File, folder: str) -> str | None:
    """Say where a file lies that is a link, relative to its folder; None if it is not."""
    if found.real is None or found.real == os.path.join(folder, file.name):
        return None
    return os.path.relpath(found.real, folder)


def _header(frame: _Frame) -> bytes:
    values = asdict(frame)
    if not frame.links:
        del values["links"]  # as it always was: a folder without links keeps its digest
    data = json.dumps(values).encode()
    return len(data).to_bytes(LENGTH_BYTES) + data


def _checked(found: files.Opened, file: _File, uri: str) -> Iterator[bytes]:
    """Give a file's bytes, as many as the listing said: some files of the system have more than they say."""
    left = file.size
    while left and (piece := found.stream.read(min(left, CHUNK))):
        left -= len(piece)
        yield piece
    size = os.fstat(found.stream.fileno()).st_size if found.real else found.size
    if left or size != file.size:
        raise InputChangedError(f"{files.join(_folder(uri), file.name)} changed while it was read; run again")


def _pairs(uri: str) -> list[tuple[_File, _File | None]]:
    """List a folder's images, each with its text file if it has one."""
    found = {_name(entry): entry for entry in _entries(uri) if entry["type"] == "file"}
    there = {name: _File(name, int(entry["size"]), files.stamp_of(entry)) for name, entry in found.items()}
    texts = {_stem(name): there[name] for name in sorted(there) if name.lower().endswith(".txt")}
    return [
        (there[name], texts.get(_stem(name), texts.get(name))) for name in sorted(there) if _is_image(name)
    ]


def _entries(uri: str) -> list[dict[str, Any]]:
    """List what is in a folder, without hidden names; all but folders and links to them count as files."""
    fs, path = files.filesystem(_folder(uri))
    entries = [entry for entry in fs.ls(path, detail=True) if not _name(entry).startswith(".")]
    return [_as_file(fs, entry) if entry["type"] == "other" else entry for entry in entries]


def _as_file(fs: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Follow a link; one to nothing, and what is special, are for those to tell who open them."""
    name = entry["name"]
    if fs.isdir(name):
        return entry
    found: dict[str, Any] = fs.info(name) if fs.isfile(name) else entry
    return found | {"type": "file"}


def _uri(root: str, path: str) -> str:
    return root if path == "." else files.join(root, path)


def _folder(uri: str) -> str:
    """Take the last `/.` off the uri of a source that is the root itself: object stores know no such name."""
    return uri.removesuffix("/.")


def _name(entry: dict[str, Any]) -> str:
    name: str = entry["name"].rstrip("/").rsplit("/", 1)[-1]
    return name


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_image(name: str) -> bool:
    return "." in name and name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS
