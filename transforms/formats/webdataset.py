"""Reads webdataset tars, and img2dataset's, which are of the same layout.

Members of one example lie together and share the name up to the first dot of the file name: KEY.jpg,
KEY.json, KEY.txt. The archive is read as a stream and never extracted.
"""

import re
import tarfile
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any, Self, cast

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
from tagmill.transforms.formats.fields import caption_names, captions_of, parse_object
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.streams import HashingStream

MAX_HEADER_BYTES = 1 << 20
"""How long the name and the attributes of a member may be, which tarfile reads whole."""

_RECORD = re.compile(rb"(\d{1,9}) ")
_HOLES = "holes"

_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)

_DAMAGE = (tarfile.TarError, ValueError, OverflowError, IndexError, RecursionError)
"""What tarfile raises of damaged headers; it checks neither where a map of holes ends nor how names nest."""

_DAMAGED = b"!"
"""The type that a file gets here whose attributes cannot be read."""

_KINDS = {
    tarfile.LNKTYPE: "is a link",
    tarfile.SYMTYPE: "is a link",
    tarfile.CHRTYPE: "is a device",
    tarfile.BLKTYPE: "is a device",
    tarfile.FIFOTYPE: "is a pipe",
    _DAMAGED: "has attributes that cannot be read",
}

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
    """A header of a tar. Raises ReadError before too much would be read for a name.

    Attributes and maps of holes are read here: tarfile's own ways take time by the square of their length,
    keep all of them, and go on in a sum that nothing bounds.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and not 0 <= member.size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a name or attributes of {member.size} bytes")
        return member

    def _proc_gnulong(self, archive: Any) -> tarfile.TarInfo:
        """Read a long name, and the header of the file that has it."""
        self._add_to(archive)
        parent: Any = super()
        return cast(tarfile.TarInfo, parent._proc_gnulong(archive))

    def _add_to(self, archive: Any) -> None:
        """Add to what was read for one member already. Raises ReadError if it is too much in all."""
        archive.said_bytes = getattr(archive, "said_bytes", 0) + self._block(self.size)
        if archive.said_bytes > 2 * MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"names and attributes of {archive.said_bytes} bytes")

    def _proc_pax(self, archive: Any) -> tarfile.TarInfo:
        """Read attributes, and the header of the file that they speak of or that follows."""
        self._add_to(archive)
        is_global = self.type == tarfile.XGLTYPE
        said = archive.pax_headers if is_global else dict(archive.pax_headers)
        attributes = _attributes(archive.fileobj.read(self._block(self.size)), self.size)
        said.update(attributes or {})
        try:
            member: Any = self.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"attributes of nothing ({error})") from error
        if is_global or member.type in _HEADERS:
            return cast(tarfile.TarInfo, member)
        member.offset = self.offset
        if path := said.get(_HOLES) or said.get("path"):
            member.name = path.rstrip("/")
        if "size" in said:
            member.size = int(said["size"])
            archive.offset = member.offset_data + (0 if member.isdir() else member._block(member.size))
        if _HOLES in said:
            member.sparse = []
        if attributes is None:
            member.type = _DAMAGED
        return cast(tarfile.TarInfo, member)

    def _proc_sparse(self, archive: Any) -> tarfile.TarInfo:
        """Pass over the map of a file with holes, which is a dead letter whatever they are."""
        member: Any = self
        _, is_extended, size = member._sparse_structs
        del member._sparse_structs
        while is_extended:
            is_extended = bool(archive.fileobj.read(tarfile.BLOCKSIZE)[504])
        member.sparse = []
        self.offset_data = archive.fileobj.tell()
        archive.offset = self.offset_data + self._block(self.size)
        self.size = size
        return self

    def _block(self, count: int) -> int:
        """Round up to whole blocks."""
        return -(-count // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _attributes(data: bytes, size: int) -> dict[str, str] | None:
    """Read the records of a pax header, "LENGTH NAME=VALUE" and a line end, and keep what matters here.

    None for what is not one: nobody knows then what its file is called. Raises ReadError where they are cut.
    """
    if len(data) < size:
        raise tarfile.ReadError("the archive ends inside attributes")
    found: dict[str, str] = {}
    place = 0
    while place < size and data[place]:
        match = _RECORD.match(data, place)
        stop = place + int(match[1]) if match else 0
        if not match or not match.end() < stop <= size or data[stop - 1] != ord("\n"):
            return None
        name, sign, value = data[match.end() : stop - 1].partition(b"=")
        if not sign:
            return None
        if name.startswith(b"GNU.sparse."):
            found.setdefault(_HOLES, "")
        if name in (b"path", b"GNU.sparse.name"):
            path = value.decode("utf-8", "surrogateescape")
            found["path" if name == b"path" else _HOLES] = path
        elif name == b"size":
            if not value.isdigit() or len(value) > 19:
                return None
            found["size"] = value.decode()
        place = stop
    return found


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
        archive.said_bytes = 0  # type: ignore[attr-defined]  # see `_Member`
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
        if not member.isdir() and _split(member.name)[0]:  # what is not a file is a dead letter, see `_load`
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
    read, seen = set(), set()
    for member in members:
        extension = _split(member.name)[1]
        seen.add(extension)
        is_image = extension in IMAGE_EXTENSIONS
        if not (is_image or extension in ("txt", "json")):
            continue
        if not member.isreg() or member.issparse():
            what = "has holes" if member.issparse() else _KINDS.get(member.type, "is not a regular file")
            detail = f"{member.name} {what}: write the archive with the bytes themselves"
            raise DataError(Reason.IMAGE_MISSING, f"{detail} (tar --hard-dereference, without --sparse)")
        if (is_image and record is not None) or extension in read:
            detail = f"{member.name} is a second {'image' if is_image else extension} of the example"
            raise DataError(Reason.RECORD_INVALID, f"{detail} in {source.path}")
        read.add(extension)
        (limits.check if is_image else limits.check_record)(member.name, member.size)
        data = _data(archive, member)
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
    _say(record, fields, texts, config)
    record.seen = tuple(sorted(seen))
    return record


def _say(record: Record, fields: dict[str, Any], texts: list[str | bytes], config: InputConfig) -> None:
    """Put the fields of an example's JSON into its record, and the captions in them and in its text."""
    record.fields = fields
    record.used = caption_names(fields, config)
    record.captions = captions_of(fields, config)
    if texts and (config.captions is None or "txt" in config.captions):
        record.captions += texts
        record.used += ("txt",)


def _data(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
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
