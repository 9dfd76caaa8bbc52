"""Reads webdataset tars, and img2dataset's, which are of the same layout.

Members of one example lie together and share the name up to the first dot of the file name: KEY.jpg,
KEY.json, KEY.txt. The archive is read as a stream and never extracted.
"""

import re
import tarfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any, Self

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import (
    IMAGE_EXTENSIONS,
    InputConfig,
    Limits,
    Record,
    Source,
    SourceExample,
)
from tagmill.transforms.formats.fields import captions_of, parse_object
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.streams import HashingStream

MAX_HEADER_BYTES = 1 << 20
"""How long the name and the attributes of a member may be, which tarfile reads whole."""

_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

_DAMAGE = (tarfile.TarError, ValueError, OverflowError, IndexError, RecursionError)
"""What tarfile raises of damaged headers; it checks neither where a map of holes ends nor how names nest."""

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


class Webdataset(FileFormat):
    """The format `webdataset`."""

    pattern = "*.tar"

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a tar; see `Format`.

        An archive that does not end as a tar must gives one more example, dead, whose key ends in `#end`:
        what should have followed is missing, and somebody should know. The last example before is dead too:
        nobody knows whether it had more members, such as what says that it is a test image.
        """
        try:
            archive = tarfile.open(  # noqa: SIM115  # closed by the `with` below
                fileobj=stream, mode="r|", bufsize=1 << 20, tarinfo=_Member
            )
        except _DAMAGE as error:
            detail = f"{source.path} is not an uncompressed tar ({error})"
            raise DataError(Reason.SOURCE_UNREADABLE, detail) from error
        damage: list[str] = []
        with archive:
            members = _members(archive, source, damage)
            for key, group in groupby(members, key=lambda member: _split(member.name)[0]):
                yield SourceExample(key, partial(_load, archive, group, damage, source, config, limits))
        if damage:
            detail = f"{source.path} is cut or damaged: {damage[0]}"
            yield SourceExample.failing(f"{source.path}#end", Reason.SOURCE_TRUNCATED, detail)


class _Member(tarfile.TarInfo):
    """A header of a tar. Raises ReadError before too much would be read for a name."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and member.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a name or attributes of {member.size} bytes")
        return member


def _members(archive: tarfile.TarFile, source: Source, damage: list[str]) -> Iterator[tarfile.TarInfo]:
    """Give the files that belong to examples, and keep none in memory.

    Ends at the end of the archive, or at the first header that cannot be read; notes the damage if it is not
    where a tar ends.
    """
    size = files.size_and_stamp(source.uri)[0]
    while True:
        if archive.offset > size:  # tarfile would seek there for ever
            damage.append(f"{archive.offset - size} bytes are missing")
            return
        try:
            member = archive.next()
        except _DAMAGE as error:
            damage.append(str(error))
            return
        if member is None:
            if not _is_ended(source, archive.offset):
                damage.append("no end of archive")
            elif not _is_rest_empty(archive):
                damage.append("more data after the end of archive")
            return
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
        if (member.isreg() or member.islnk() or member.issym()) and _split(member.name)[0]:
            yield member


def _split(name: str) -> tuple[str, str]:
    """Split a member's name into key and extension; both are empty if it belongs to no example."""
    match = _NAME.fullmatch(name.removeprefix("./"))
    return (match[1], match[2].lower()) if match else ("", "")


def _is_ended(source: Source, offset: int) -> bool:
    fs, path = files.filesystem(source.uri)
    block = fs.cat_file(path, start=offset, end=offset + tarfile.BLOCKSIZE)
    return bool(block == bytes(tarfile.BLOCKSIZE))


def _is_rest_empty(archive: tarfile.TarFile) -> bool:
    """Tell whether only padding follows; a second tar, or a hole of zeros in the first, would be lost."""
    stream: Any = archive.fileobj
    return all(not chunk.strip(b"\0") for chunk in iter(lambda: stream.read(1 << 20), b""))


def _load(
    archive: tarfile.TarFile,
    members: Iterable[tarfile.TarInfo],
    damage: list[str],
    source: Source,
    config: InputConfig,
    limits: Limits,
) -> Record:
    """Read the members of one example. `damage` is noted while they are: then some of them may be missing."""
    record: Record | None = None
    texts: list[str | bytes] = []
    fields: dict[str, Any] = {}
    read = set()
    for member in members:
        extension = _split(member.name)[1]
        is_image = extension in IMAGE_EXTENSIONS
        if not (is_image or extension in ("txt", "json")):
            continue
        if not member.isreg() or member.issparse():
            detail = f"{member.name} is a link or has holes: write the archive with the bytes themselves"
            raise DataError(Reason.IMAGE_MISSING, f"{detail} (tar --hard-dereference, without --sparse)")
        if (is_image and record is not None) or extension in read:
            detail = f"{member.name} is a second {'image' if is_image else extension} of the example"
            raise DataError(Reason.RECORD_INVALID, f"{detail} in {source.path}")
        read.add(extension)
        data = _data(archive, member, limits)
        if is_image:
            reference = ("range", source.path, member.offset_data, member.size)
            record = Record(dict(zip(("kind", "uri", "offset", "size"), reference, strict=True)), data)
        elif extension == "txt":
            texts.append(_text(data))
        elif extension == "json":
            fields = parse_object(data, member.name)
    if damage:
        detail = f"{source.path} is cut or damaged here, and the example may lack members: {damage[0]}"
        raise DataError(Reason.SOURCE_TRUNCATED, detail)
    if record is None:
        raise DataError(Reason.IMAGE_MISSING, f"no image member in {source.path}")
    record.captions = [*captions_of(fields, config), *texts]
    record.fields = fields
    return record


def _data(archive: tarfile.TarFile, member: tarfile.TarInfo, limits: Limits) -> bytes:
    limits.check(member.name, member.size)
    opened = archive.extractfile(member)
    try:
        data = opened.read() if opened else b""
    except tarfile.ReadError as error:
        raise DataError(Reason.SOURCE_TRUNCATED, f"{member.name}: {error}") from error
    if len(data) != member.size:
        raise DataError(Reason.SOURCE_TRUNCATED, f"{member.name}: the archive ends inside it")
    return data


def _text(data: bytes) -> str | bytes:
    """Decode a caption; bytes that are not UTF-8 stay bytes, for ingest to refuse."""
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return data
