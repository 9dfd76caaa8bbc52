"""What a source format is, what it gives to ingest, and the config of one input."""

import errno
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, Literal, Protocol, runtime_checkable

from pydantic import Field, field_validator, model_validator

from tagmill.tag_system.core import files, plugins
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.tag_system.licences import LicenceSource
from tagmill.tag_system.shard_contract import Split
from tagmill.transforms.formats.streams import HashingStream

FORMATS = {
    "coco": "tagmill.transforms.formats.coco:Coco",
    "csv": "tagmill.transforms.formats.csv_tables:CsvTable",
    "folder": "tagmill.transforms.formats.folder:Folder",
    "json": "tagmill.transforms.formats.json_list:JsonList",
    "jsonl": "tagmill.transforms.formats.jsonl:JsonLines",
    "open-images": "tagmill.transforms.formats.open_images:OpenImages",
    "parquet": "tagmill.transforms.formats.parquet_table:ParquetTable",
    "ram": "tagmill.transforms.formats.ram:RamAnnotations",
    "tsv": "tagmill.transforms.formats.csv_tables:TsvTable",
    "visual-genome": "tagmill.transforms.formats.visual_genome:VisualGenome",
    "webdataset": "tagmill.transforms.formats.webdataset:Webdataset",
    "yolo": "tagmill.transforms.formats.yolo:Yolo",
}
"""Short names of the built-in formats."""

IMAGE_EXTENSIONS = frozenset(
    [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "apng",
        "webp",
        "gif",
        "bmp",
        "dib",
        "tif",
        "tiff",
        "avif",
        "heic",
        "heif",
        "hif",
        "jxl",
        "jp2",
        "j2k",
    ]
)
"""Extensions that mean an image; which formats are then decoded is for `decoders.FORMATS` to say."""

LICENCE_KEYS = ("license", "license_field", "license_map")
"""Keys of an input that say how licences are read of what was ingested."""

Links = Literal["within", "follow"]

_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class InputConfig(Config):
    """One input: sources of one format under one name.

    `format` is a short name of `FORMATS` or your own class as `package.module:Class`, made from `options`.
    `path` is a file, a pattern (`*`, `{000..099}`, `{a,b}`), an fsspec url or a list of these, for the format
    `folder` the folder; `images` is the folder that
    image paths are relative to, in formats whose images lie apart (default: the folder of the file).
    `image` and `captions` name the fields, columns or extensions of members that hold an image and captions;
    None leaves it to the usual names (`fields.IMAGES`, `fields.USUAL_CAPTIONS`), and with names these alone
    are used. `labels` names the field of given labels. `boxes` says whether given boxes are of the stored or
    of the upright pixels; `auto` goes by the size that an example notes. `split` overrides what the source
    says. `links` says where a link may lead that an image or its captions are: `within` the folder that they
    are looked for in, or anywhere (`follow`). What `path` names or matches may be a link in any case.
    `exclude` is a text file of what must not be in the dataset, whatever input has it: see
    `exclusion.Exclusion`. `license_field` names the field of `meta` that holds an image's licence,
    `license_map` says what its values stand for, and `license` is that of images whose field says none.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    format: str
    path: str | list[str]
    options: dict[str, Any] = {}
    images: str | None = None
    image: list[str] | None = None
    captions: list[str] | None = None
    labels: str | None = "labels"
    boxes: Literal["stored", "upright", "auto"] = "auto"
    split: Split | None = None
    links: Links = "within"
    exclude: str | None = None
    license: str | None = None
    license_field: str | None = "license"
    license_map: dict[str, str] = {}

    @field_validator("license_map", mode="before")
    @classmethod
    def _texts(cls, names: Any) -> Any:
        """Take numbers, as COCO has them, for the texts that YAML would have them quoted to be."""
        return {str(name): said for name, said in names.items()} if isinstance(names, dict) else names

    @property
    def licences(self) -> LicenceSource:
        """Say how the licences of the images are found."""
        return LicenceSource(self.license, self.license_field, self.license_map)

    @property
    def paths(self) -> list[str]:
        """Give `path` as a list."""
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def only_path(self) -> str:
        """Give `path`, for a format that takes only one. Raises ConfigError for several."""
        if len(self.paths) != 1:
            raise ConfigError(
                f"input {self.name}: a {self.format} takes one path; make an input of each of {self.paths}"
            )
        return self.paths[0]

    @model_validator(mode="after")
    def _check_format(self) -> "InputConfig":
        try:
            format_ = format_of(self)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.images and not format_.images_apart:
            raise ValueError(f"a {self.format} holds its images, so images is not for it")
        return self


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
    """How large one thing in a source may be: an image, and what is said of it in JSON or text."""

    max_member_bytes: int
    max_record_bytes: int = 4 << 20

    def check(self, name: str, size: int) -> None:
        """Raise DataError for a file or member that is too large to be read."""
        if size > self.max_member_bytes:
            detail = f"{name}: {size} bytes; the limit is {self.max_member_bytes} (ingest.max_member_bytes)"
            raise DataError(Reason.MEMBER_TOO_LARGE, detail)

    @property
    def line(self) -> tuple[int, str, Reason]:
        """How long a line of JSON may be, the key that says so, and the reason to name for one too long."""
        if self.max_record_bytes < self.max_member_bytes:
            return self.max_record_bytes, "ingest.max_record_bytes", Reason.RECORD_TOO_LARGE
        return self.max_member_bytes, "ingest.max_member_bytes", Reason.MEMBER_TOO_LARGE

    def check_record(self, name: str, size: int) -> None:
        """Raise DataError for a JSON or a text that is too large: parsed, it takes 30 times its size."""
        self.check(name, size)
        if size > self.max_record_bytes:
            detail = f"{name}: {size} bytes; the limit is {self.max_record_bytes} (ingest.max_record_bytes)"
            raise DataError(Reason.RECORD_TOO_LARGE, detail)


@dataclass
class Record:
    """One example as its source holds it, unchecked: ingest decides what is bad in it.

    `used` names the fields, or the extensions of members, that gave the captions, and `seen` what the source
    holds besides `fields`. `odd` are the errors of fields that the format itself could not read.
    """

    image: dict[str, Any]
    data: bytes
    captions: list[Any] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    used: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    odd: list[DataError] = field(default_factory=list)


@dataclass(frozen=True)
class SourceExample:
    """An example that a format came across; `load` reads it and may raise DataError.

    `load` must be called before the format goes on, or not at all. `remedy` is what to do if another example
    of the source has the same key.
    """

    key: str
    load: Callable[[], Record]
    remedy: str = ""

    @classmethod
    def failing(cls, key: str, reason: Reason, detail: str) -> "SourceExample":
        """Make an example that is dead from the start."""
        return cls(key, partial(_fail, DataError(reason, detail)))


def _fail(error: DataError) -> Record:
    raise error


class Format(Protocol):
    """All that the engine needs to know of a source format.

    A format is constructed from the `options` of an input, cheaply, in the driver and in every worker.
    """

    version: int
    """Raised whenever the same source gives other examples: what was ingested is then made again."""

    images_apart: bool
    """Whether images lie apart from the sources, so that the key `images` of an input may say where."""

    @abstractmethod
    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """Give the folder that an input's sources lie under, and their paths in it, in order.

        Raises ConfigError if there are none.
        """

    @abstractmethod
    def size_and_stamp(self, uri: str) -> tuple[int, str]:
        """Tell a source's size in bytes and what changes when it is rewritten. Raises OSError."""

    @abstractmethod
    def open_read(self, uri: str) -> AbstractContextManager[IO[bytes]]:
        """Open a source for reading, front to end. Its bytes are hashed: equal bytes are an equal source."""

    @abstractmethod
    def image_folder(self, root: str, uri: str) -> str:
        """Say where a source's image references resolve, if the input does not; `root` is of all sources."""

    @abstractmethod
    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Walk through a source, once, and give its examples in order.

        Image references are relative to `source.images`. What cannot be read is a failing example; raises
        DataError if the source as a whole cannot be read.
        """


@runtime_checkable
class CopyingFormat(Protocol):
    """A format that has ingest copy some images into the run, see `image_copies`."""

    @abstractmethod
    def copied_bytes(self, uri: str) -> int:
        """Tell how many bytes of a source's images are copied, about; 0 for what cannot be read."""


def licences_of(inputs: Iterable[InputConfig]) -> dict[str, LicenceSource]:
    """Say how the licences of each input's images are found, by its name."""
    return {source.name: source.licences for source in inputs}


_MEMBERS = ("version", "images_apart", "find_sources", "size_and_stamp", "open_read", "image_folder", "read")


def format_of(config: InputConfig) -> Format:
    """Construct the format of an input. Raises ConfigError if there is none that fits `Format`."""
    found: Format = plugins.create("format", config.format, config.options, FORMATS)
    missing = [name for name in _MEMBERS if not hasattr(found, name)]
    if missing:
        raise ConfigError(
            f"format {config.format!r} lacks {', '.join(missing)}: "
            "extend tagmill.transforms.formats.file_format:FileFormat, or add them"
        )
    return found


def check_link(name: str, target: str, root: str, links: Links) -> None:
    """Raise DataError for a file whose links lead out of `root`, unless they may be followed.

    `target` is where the file `name` really lies, relative to where `root` does.
    """
    if links == "within" and (target == ".." or target.startswith(("../", "/"))):
        detail = f"{name} is a link that leads to {target}, out of {root}"
        raise DataError(Reason.LINK_REFUSED, f"{detail}; set `links: follow` of the input to allow it")


def why_missing(error: OSError) -> str:
    """Say why a file cannot be opened.

    Raises `error` itself if it is not the file's fault, as a lost connection or a broken disk: that stops
    the run, which can be resumed, and no example is lost.
    """
    if isinstance(error, files.SpecialFileError):
        return "is a pipe, a socket or a device, not a regular file"
    if not isinstance(error, _NO_FILE) and error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
        raise error
    return f"cannot be read ({error.strerror or type(error).__name__})"
