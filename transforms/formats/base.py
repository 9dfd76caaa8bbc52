"""What a reader of a source format gives to ingest, and the config of one input."""

import errno
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import Field

from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.shard_contract import Split

MAX_DEPTH = 50
"""How deeply the JSON of an example may be nested."""

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"})
"""Extensions that mean an image; which formats are then decoded is for `images.FORMATS` to say."""

_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class InputConfig(Config):
    """One input: source files of one format under one name.

    `path` is a file, a glob or an fsspec url, for the format `folder` the folder; `images` the folder that a
    `jsonl` input's image paths are relative to (default: the folder of the file). `captions` and `labels`
    name JSON fields; a `.txt` member of a webdataset is a caption too, and so is each line of a `.txt` file
    beside an image in a folder. `boxes` says whether given boxes are of the stored or of the upright pixels;
    `auto` goes by the size that an example notes. `split` overrides what the source says.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    format: Literal["webdataset", "jsonl", "folder"]
    path: str
    images: str | None = None
    captions: list[str] = ["captions", "caption"]
    labels: str | None = "labels"
    boxes: Literal["stored", "upright", "auto"] = "auto"
    split: Split | None = None


@dataclass(frozen=True)
class Source:
    """One source file: `path` relative to `root`, the folder of its input; `images` is where image
    references resolve, the same folder unless the input says otherwise.
    """

    root: str
    path: str
    images: str

    @property
    def uri(self) -> str:
        """Where the file is."""
        return files.join(self.root, self.path) if self.root else self.path


@dataclass(frozen=True)
class Limits:
    """How large one thing in a source may be."""

    max_member_bytes: int


@dataclass
class Record:
    """One example as its source holds it, unchecked: ingest decides what is bad in it."""

    image: dict[str, Any]
    data: bytes
    captions: list[Any] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceExample:
    """An example that a reader came across; `load` reads it and may raise DataError.

    `load` must be called before the reader goes on, or not at all.
    """

    key: str
    load: Callable[[], Record]


class Reader(Protocol):
    """Walks through one source file, once, front to end."""

    def __call__(
        self, stream: "HashingStream", source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a file in their order; image references are relative to `source.images`.

        Raises DataError if the file as a whole cannot be read.
        """


class HashingStream(io.RawIOBase):
    """Passes a file through, front to end, and hashes it on the way."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._state = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """Say that this is for reading."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read and hash up to `size` bytes."""
        data: bytes = self._stream.read(size)
        self._state.update(data)
        self.size += len(data)
        return data

    def finish(self) -> str:
        """Read what is left and give the sha256 of the whole file."""
        while self.read(1 << 20):
            pass
        return self._state.hexdigest()


def why_missing(error: OSError) -> str:
    """Say why a file cannot be opened.

    Raises `error` itself if it is not the file's fault, as a lost connection or a broken disk: that stops
    the run, which can be resumed, and no example is lost.
    """
    if not isinstance(error, _NO_FILE) and error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
        raise error
    return f"cannot be read ({error.strerror or type(error).__name__})"


def parse_object(data: bytes | str, where: str) -> dict[str, Any]:
    """Parse one JSON object. Raises DataError."""
    try:
        # NaN is no JSON, but pandas writes it for what is missing.
        value = json.loads(data, parse_constant=lambda _: None, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(Reason.RECORD_INVALID, f"{where}: {error}") from error
    if not isinstance(value, dict):
        raise DataError(Reason.RECORD_INVALID, f"{where}: expected a JSON object")
    if _is_deep(value):
        raise DataError(Reason.RECORD_INVALID, f"{where}: nested deeper than {MAX_DEPTH} levels")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object. Raises ValueError for a name that stands twice, of which one value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)!r} stands twice")
    return found


def _is_deep(value: Any) -> bool:
    """Tell whether JSON is nested so deeply that writing it again could exceed Python's stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)


def captions_of(fields: dict[str, Any], config: InputConfig) -> list[Any]:
    """Take the captions out of an example's JSON fields; a field holds one or a list."""
    found: list[Any] = []
    for name in config.captions:
        value = fields.get(name)
        found.extend(value if isinstance(value, list) else [] if value is None else [value])
    return found
