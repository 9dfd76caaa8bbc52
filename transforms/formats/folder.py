"""Reads a folder of images, and the folders in it; files of its name beside an image say what it is.

Each folder that holds images is one source. It is passed through as one stream, like an archive: for each
image a frame of its header, its bytes and those of the files beside it, and before all the frame of a table
of them, see `folder_metadata.py`. So one digest speaks for all of the folder. The key is the image's path
without extension, or with it where two images differ in nothing else. Each line of KEY.txt and KEY.caption is
a caption, and KEY.json holds fields. Names are sorted; those that begin with a dot, and linked folders, are
passed over. The frame of a linked file says where it leads, and the reader whether that is allowed. The names
of one folder are held in memory, and one image at a time.
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
from typing import IO, Any, Literal

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError, InputChangedError, Reason
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
from tagmill.transforms.formats.fields import caption_names, captions_of, parse_object
from tagmill.transforms.formats.folder_metadata import TABLES, FolderTable, lone_table
from tagmill.transforms.formats.streams import HashingStream, PieceStream, StreamPart

CHUNK = 1 << 20

MAX_FILE_BYTES = 1 << 30
"""A larger file is not passed through at all: one full of holes may claim to have any size."""

LENGTH_BYTES = 8

TEXTS = ("txt", "caption")
"""Extensions of files with a caption a line."""

BESIDE = (*TEXTS, "json")
"""Extensions of the files that speak of the image of their name, in the order of the stream."""


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    stamp: str


@dataclass(frozen=True)
class _Frame:
    """The header of an image in the stream: sizes in bytes; `problem` says why there is nothing to read.

    `captions_size` is that of KEY.txt, `beside` are those of the others by extension. `links` are the files
    that are links: name -> where they lead, relative to their folder. A table of the folder has no key.
    """

    key: str
    name: str
    size: int
    captions_size: int | None = None
    problem: str | None = None
    links: dict[str, str] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the files beside the image, by extension, in the order of the stream."""
        text = {} if self.captions_size is None else {"txt": self.captions_size}
        return text | self.beside


@dataclass(frozen=True)
class _Listed:
    """An image and the files beside it, by extension."""

    image: _File
    beside: dict[str, _File]

    @property
    def files(self) -> list[_File]:
        return [self.image, *self.beside.values()]


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

    version = 3
    images_apart = False

    def __init__(
        self, labels: Literal["folders"] | None = None, metadata: Literal["ignore"] | None = None
    ) -> None:
        """Make the format.

        Args:
            labels: `folders`: the name of the folder that an image lies in is a label of it.
            metadata: `ignore`: a table of the folder, as Hugging Face's, counts for nothing.
        """
        if labels not in ("folders", None):
            raise ValueError(f"labels is folders, or left out, got {labels!r}")
        if metadata not in ("ignore", None):
            raise ValueError(f"metadata is ignore, or left out, got {metadata!r}")
        self._labels = labels
        self._metadata = metadata is None

    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """List the folders that hold images; see `Format`."""
        path = config.only_path
        if not files.is_folder(path):
            raise ConfigError(f"input {config.name}: {path} is not a folder")
        try:
            found = list(find_folders(path))
            if self._metadata and "." not in found and (table := _table(_entries(path))):
                raise ConfigError(lone_table(config, _name(table)))
        except OSError as error:
            raise ConfigError(
                f"input {config.name}: cannot list {error.filename or path} ({error.strerror})"
            ) from error
        if not found:
            raise ConfigError(f"input {config.name}: no image in {path} or the folders in it")
        for name in found:
            if not name.isprintable():
                raise ConfigError(
                    f"input {config.name}: rename the folder {name!a}: its name cannot be printed"
                )
        return files.absolute(path), found

    def size_and_stamp(self, uri: str) -> tuple[int, str]:
        """Tell the bytes of a folder's images and captions, and what changes when any is rewritten."""
        table, images = self._listed(uri)
        listed = [asdict(file) for image in images for file in image.files]
        listed += [asdict(table)] if table else []
        stamp = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        return sum(file["size"] for file in listed), stamp

    @contextmanager
    def open_read(self, uri: str) -> Iterator[IO[bytes]]:
        """Open a folder as one stream. Reading raises InputChangedError if a file changes meanwhile."""
        with closing(_frames(uri, *self._listed(uri))) as chunks:
            yield io.BufferedReader(PieceStream(chunks), CHUNK)

    def image_folder(self, root: str, uri: str) -> str:
        """Images lie below the root; see `Format`."""
        return root

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a folder; see `Format`."""
        folder = posixpath.normpath(source.path)
        label = [posixpath.basename(folder)] if self._labels and folder != "." else []
        with ExitStack() as stack:
            table: FolderTable | None = None
            while length := stream.read(LENGTH_BYTES):
                frame = _Frame(**json.loads(stream.read(int.from_bytes(length))))
                body = StreamPart(stream, frame.size + sum(frame.sizes.values()))
                path, key = (_within(folder, name) for name in (frame.name, frame.key))
                if frame.problem:
                    detail = f"{path}: {frame.problem}"
                    yield SourceExample.failing(key if frame.key else path, Reason.IMAGE_MISSING, detail)
                elif not frame.key:
                    table = stack.enter_context(FolderTable(source, frame.name, config, limits))
                    yield from _read_table(table, body, frame, source, config)
                else:
                    load = partial(_load, body, frame, table, label, source, config, limits)
                    yield SourceExample(key, load)
                body.skip()
            if table is not None:
                yield from table.unused()

    def _listed(self, uri: str) -> tuple[_File | None, list[_Listed]]:
        """List a folder's images, each with the files beside it, and the table of them if there is one."""
        entries = _entries(uri)
        there = {_name(entry): _file(entry) for entry in entries if entry["type"] == "file"}
        named = {
            extension: {_stem(name): there[name] for name in sorted(there) if _extension(name) == extension}
            for extension in BESIDE
        }
        images = []
        for name in sorted(there):
            if _is_image(name):
                found = {e: files_.get(_stem(name), files_.get(name)) for e, files_ in named.items()}
                images.append(_Listed(there[name], {e: file for e, file in found.items() if file}))
        table = _table(entries) if self._metadata else None
        return (_file(table) if table else None), images


def _read_table(
    table: FolderTable, body: StreamPart, frame: _Frame, source: Source, config: InputConfig
) -> Iterator[SourceExample]:
    """Read the table of a folder; what is wrong with it are failing examples."""
    try:
        _check_links(frame, source, config)
        yield from table.fill(body)
    except DataError as error:
        yield SourceExample.failing(_within(source.path, frame.name), error.reason, error.detail)
    except ConfigError as error:  # of another format than its name says
        yield SourceExample.failing(
            _within(source.path, frame.name), Reason.SOURCE_UNREADABLE, f"{frame.name}: {error}"
        )


def _check_links(frame: _Frame, source: Source, config: InputConfig) -> None:
    for name, link in frame.links.items():
        target = _within(source.path, link)
        check_link(posixpath.join(source.path, name), target, source.root, config.links)


def _within(folder: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(folder, name))


def _load(
    body: StreamPart,
    frame: _Frame,
    table: FolderTable | None,
    label: list[str],
    source: Source,
    config: InputConfig,
    limits: Limits,
) -> Record:
    path = _within(source.path, frame.name)
    _check_links(frame, source, config)
    limits.check(path, frame.size)
    for extension in (one for one in TEXTS if one in frame.sizes):
        limits.check_record(f"the captions of {path}", frame.sizes[extension])
    reference = {"kind": "file", "uri": path, "offset": 0, "size": frame.size}
    record = Record(reference, body.read(frame.size), seen=(_extension(frame.name), *frame.sizes))
    texts = {extension: body.read(size) for extension, size in frame.sizes.items() if extension in TEXTS}
    if table is not None:
        record.fields |= table.fields(frame.name, record.odd)
    if "json" in frame.sizes:
        record.fields |= _json(body, frame, path, limits, record.odd)
    record.used = caption_names(record.fields, config)
    record.captions = captions_of(record.fields, config)
    for extension, data in texts.items():
        if config.captions is None or extension in config.captions:
            record.used += (extension,)
            record.captions += _captions(data)
    if label and config.labels:
        given = record.fields.get(config.labels)
        record.fields[config.labels] = label + (given if isinstance(given, list) else [])
    return record


def _json(body: StreamPart, frame: _Frame, path: str, limits: Limits, odd: list[DataError]) -> dict[str, Any]:
    """Read the fields beside an image; a file that is none is odd, for other programs write such files."""
    try:
        limits.check_record(f"the JSON of {path}", frame.sizes["json"])
        return parse_object(body.read(frame.sizes["json"]), f"the JSON of {path}")
    except DataError as error:
        odd.append(DataError(Reason.META_INVALID, error.detail))
        return {}


def _captions(data: bytes) -> list[str | bytes]:
    """Split a text into captions, a line each; what is empty or no UTF-8 is left for ingest to refuse."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return [data]
    return [line for line in lines(text) if line.strip()] or [text]


def _frames(uri: str, table: _File | None, images: list[_Listed]) -> Generator[bytes]:
    real = os.path.realpath(files.filesystem(_folder(uri))[1])
    stems = Counter(_stem(one.image.name) for one in images)
    if table is not None:
        yield from _frame("", _Listed(table, {}), uri, real)
    for one in images:
        name = one.image.name
        yield from _frame(_stem(name) if stems[_stem(name)] == 1 else name, one, uri, real)


def _frame(key: str, listed: _Listed, uri: str, real: str) -> Iterator[bytes]:
    """Give the header of an image and the bytes of its files."""
    name = listed.image.name
    with ExitStack() as stack:
        try:
            opened = [
                (file, stack.enter_context(files.opened(files.join(_folder(uri), file.name))))
                for file in listed.files
            ]
        except OSError as error:
            yield _header(_Frame(key, name, 0, problem=why_missing(error)))
            return
        large = [file for file, _ in opened if file.size > MAX_FILE_BYTES]
        if large:
            problem = f"{large[0].name} has {large[0].size} bytes: no image or text is that large"
            yield _header(_Frame(key, name, 0, problem=problem))
            return
        links = {file.name: link for file, found in opened if (link := _link(found, file, real))}
        beside = {extension: file.size for extension, file in listed.beside.items()}
        text = beside.pop("txt", None)
        yield _header(_Frame(key, name, listed.image.size, text, links=links, beside=beside))
        for file, found in opened:
            yield from _checked(found, file, uri)


def _link(found: files.Opened, file: _File, folder: str) -> str | None:
    """Say where a file lies that is a link, relative to its folder; None if it is not."""
    if found.real is None or found.real == os.path.join(folder, file.name):
        return None
    return os.path.relpath(found.real, folder)


def _header(frame: _Frame) -> bytes:
    values = asdict(frame)
    for name in ("links", "beside"):
        if not values[name]:
            del values[name]  # as it always was: a folder without such files keeps its digest
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


def _file(entry: dict[str, Any]) -> _File:
    return _File(_name(entry), int(entry["size"]), files.stamp_of(entry))


def _table(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Find the table of a folder among its files."""
    there = {_name(entry): entry for entry in entries if entry["type"] == "file"}
    return next((there[name] for name in TABLES if name in there), None)


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


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _is_image(name: str) -> bool:
    return "." in name and _extension(name) in IMAGE_EXTENSIONS
