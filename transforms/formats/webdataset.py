"""Reads webdataset tars, and img2dataset's, which are of the same layout.

Members of one example share the name up to the first dot of the file name: KEY.jpg, KEY.json, KEY.txt,
KEY.cls. Where they lie together, as they should, the archive is read as a stream; a local one whose members
do not is read by place. Nothing is ever extracted.
"""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.tag_system.core.text import lines
from tagmill.transforms.formats.base import (
    IMAGE_EXTENSIONS,
    InputConfig,
    Limits,
    Record,
    Source,
    SourceExample,
)
from tagmill.transforms.formats.fields import caption_names, captions_of, parse_object
from tagmill.transforms.formats.several import SeveralFiles
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.formats.tars import KINDS, data_of, members_of, opened, split

TEXTS = ("txt", "caption", "text")
"""Extensions of members that hold a caption, where an input does not name them."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")

_REMEDY = "sort them: unpack it, and write it anew with tar --sort=name"


class Webdataset(SeveralFiles):
    """The format `webdataset`.

    `classes` are the names that the numbers in members `KEY.cls` stand for: a list, or a text file with one a
    line.
    """

    pattern = "*.tar"
    of_each = True

    def __init__(self, classes: list[str] | str | None = None) -> None:
        super().__init__({"classes": classes if isinstance(classes, str) else None})
        self._classes = classes if isinstance(classes, list) else None
        self.version = 3 if self.others else 2

    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """List the tars; see `Format`. Raises ConfigError for compressed ones, too."""
        root, paths = super().find_sources(config)
        for path in paths:
            if path.lower().endswith(_COMPRESSED):
                raise ConfigError(
                    f"input {config.name}: {path} is compressed; images are read where they lie: unpack it "
                    "(gunzip, unzstd, bunzip2 or unxz) and name the .tar"
                )
        return root, paths

    def uris(self, uri: str) -> list[str]:
        """Name the files of a source in the order of their stream: names of classes first."""
        return [*self.others.values(), uri]

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a tar; see `Format`.

        An archive that does not end as a tar must gives one more example, dead, whose key ends in `#end`:
        what should have followed is missing, and somebody should know. The last example before is dead too:
        nobody knows whether it had more members, such as what says that it is a test image.
        """
        names, tar = self._classes, next(streams := self.streams(stream))
        if self.others:
            names = _class_names(tar.read(), config, self.others["classes"])
            tar = next(streams)
        reader = _MemberReader(source, config, limits, names)
        if files.is_local(source.uri) and not files.is_special(source.uri) and _is_scattered(source):
            yield from _scattered(source, reader)
            return
        damage: list[str] = []
        told: dict[str, frozenset[str]] = {}
        with opened(tar, source, "r|") as archive:
            for key, group in groupby(members_of(archive, source, damage), key=_key):
                seen: set[str] = set()
                members = _noting(group, seen)
                yield SourceExample(key, partial(reader.load, archive, members, damage))
                for _ in members:
                    pass
                if _is_torn(key, seen, told):
                    raise ConfigError(f"{source.uri}: the members of {key} do not lie together; {_REMEDY}")
        if damage:
            detail = f"{source.path} is cut or damaged: {damage[0]}"
            yield SourceExample.failing(f"{source.path}#end", Reason.SOURCE_TRUNCATED, detail)


def _class_names(data: bytes, config: InputConfig, uri: str) -> list[str]:
    try:
        return [line.strip() for line in lines(data.decode("utf-8-sig"))]
    except UnicodeDecodeError as error:
        raise ConfigError(f"input {config.name}: {uri} is no list of classes: it is not UTF-8") from error


def _key(member: tarfile.TarInfo) -> str:
    return split(member.name)[0]


def _noting(members: Iterable[tarfile.TarInfo], seen: set[str]) -> Iterator[tarfile.TarInfo]:
    """Pass members on, and note their extensions."""
    for member in members:
        seen.add(split(member.name)[1])
        yield member


def _is_torn(key: str, seen: set[str], told: dict[str, frozenset[str]]) -> bool:
    """Tell whether a key came before, with other members: a second example under a key has the same again."""
    before = told.get(key)
    told[key] = frozenset(seen) | (before or frozenset())
    return before is not None and not before & seen


def _is_scattered(source: Source) -> bool:
    """Look through the headers of a local archive for an example whose members do not lie together."""
    told: dict[str, frozenset[str]] = {}
    sets: dict[frozenset[str], frozenset[str]] = {}
    with _walked(source, []) as members:
        for key, group in groupby(members, key=_key):
            if _is_torn(key, {split(member.name)[1] for member in group}, told):
                return True
            told[key] = sets.setdefault(told[key], told[key])
    return False


@contextmanager
def _walked(source: Source, damage: list[str]) -> Iterator[Iterator[tarfile.TarInfo]]:
    """Go through the headers of an archive by place."""
    with files.open_read(source.uri) as stream, opened(stream, source, "r:") as archive:
        yield members_of(archive, source, damage)


def _scattered(source: Source, reader: "_MemberReader") -> Iterator[SourceExample]:
    """Give the examples of a local archive whose members do not lie together, as their keys first come.

    Raises DataError for one that is cut or damaged: any example might lack members.
    """
    damage: list[str] = []
    groups: dict[str, list[tarfile.TarInfo]] = {}
    with _walked(source, damage) as members:
        for member in members:
            groups.setdefault(_key(member), []).append(member)
    if damage:
        detail = f"{source.path} is cut or damaged, and its members do not lie together: {damage[0]}"
        raise DataError(Reason.SOURCE_TRUNCATED, f"{detail}; any example might lack some")
    with files.open_read(source.uri) as stream, opened(stream, source, "r:") as archive:
        for key, found in groups.items():
            yield SourceExample(key, partial(reader.load, archive, found, damage))


class _MemberReader:
    """Reads examples from their members, by the extensions that an input names."""

    def __init__(
        self, source: Source, config: InputConfig, limits: Limits, classes: Sequence[str] | None
    ) -> None:
        self._source, self._config, self._limits, self._classes = source, config, limits, classes
        self._images = [name.lower() for name in config.image or ()]
        self._texts = [name.lower() for name in (TEXTS if config.captions is None else config.captions)]

    def load(self, archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], damage: list[str]) -> Record:
        """Read the members of one example. `damage` is noted while they are: then some may be missing."""
        record: Record | None = None
        read: dict[str, bytes] = {}
        image = ""
        seen = set()
        for member in members:
            extension = split(member.name)[1]
            seen.add(extension)
            is_image = self._is_image(extension)
            if not (is_image or extension in ("json", "cls") or extension in self._texts):
                continue
            self._check(member, is_image=is_image)
            if extension in read or (is_image and image and not self._images):
                what = "image" if is_image else extension
                detail = f"{member.name} is a second {what} of the example in {self._source.path}"
                raise DataError(Reason.RECORD_INVALID, detail)
            read[extension] = b""
            if is_image and image and self._images.index(image) < self._images.index(extension):
                continue
            data = data_of(archive, member)
            if is_image:
                place = ("range", self._source.path, member.offset_data, member.size)
                record = Record(dict(zip(("kind", "uri", "offset", "size"), place, strict=True)), data)
                image = extension
            else:
                read[extension] = data
        if damage:
            detail = f"{self._source.path} is cut or damaged here, and the example may lack members"
            raise DataError(Reason.SOURCE_TRUNCATED, f"{detail}: {damage[0]}")
        if record is None:
            raise DataError(Reason.IMAGE_MISSING, self._no_image(seen))
        self._say(record, {name: data for name, data in read.items() if not self._is_image(name)})
        record.seen = tuple(sorted(seen))
        return record

    def _is_image(self, extension: str) -> bool:
        return extension in (self._images or IMAGE_EXTENSIONS)

    def _check(self, member: tarfile.TarInfo, *, is_image: bool) -> None:
        """Raise DataError for a member that cannot be read, or is too large."""
        if not member.isreg() or member.issparse():
            what = "has holes" if member.issparse() else KINDS.get(member.type, "is not a regular file")
            detail = f"{member.name} {what}: write the archive with the bytes themselves"
            raise DataError(Reason.IMAGE_MISSING, f"{detail} (tar --hard-dereference, without --sparse)")
        (self._limits.check if is_image else self._limits.check_record)(member.name, member.size)

    def _no_image(self, seen: set[str]) -> str:
        wanted = f" .{' or .'.join(self._images)}" if self._images else ""
        saw = ", ".join(f".{name[:40]}" for name in sorted(seen)[:20])
        detail = f"no image member{wanted} in {self._source.path}; saw {saw}"
        others = sorted(seen - {"json", "cls", *TEXTS})
        return (
            f"{detail}; set `image: [{others[0][:40]}]` of the input if that is the one" if others else detail
        )

    def _say(self, record: Record, read: dict[str, bytes]) -> None:
        """Put what JSON, texts and class of an example say into its record."""
        fields = parse_object(read["json"], f"JSON in {self._source.path}") if "json" in read else {}
        record.used = caption_names(fields, self._config)
        record.captions = captions_of(fields, self._config)
        for name in self._texts:
            if name in read and name != "json":
                record.captions.append(_text(read[name]))
                record.used += (name,)
        if "cls" in read:
            self._add_class(fields, read["cls"])
        record.fields = fields

    def _add_class(self, fields: dict[str, Any], data: bytes) -> None:
        """Put a class among the labels, by its name; a number without names becomes the field `cls`."""
        text = str(_text(data))
        if text.isdecimal() and len(text) < 10:
            number = int(text)
            if self._classes is None:
                fields["cls"] = number
                return
            text = (
                self._classes[number]
                if number < len(self._classes)
                else f"class {number} of {len(self._classes)}"
            )
        name = self._config.labels
        if name and isinstance(fields.setdefault(name, []), list):
            fields[name].append(text)


def _text(data: bytes) -> str | bytes:
    """Decode a caption; bytes that are not UTF-8 stay bytes, for ingest to refuse."""
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return data
