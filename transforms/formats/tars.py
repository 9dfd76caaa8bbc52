"""Reads tars member by member, whatever their headers say."""

import re
import tarfile
from collections.abc import Iterator
from typing import IO, Any, Literal, Self, cast

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import Source
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

KINDS = {
    tarfile.LNKTYPE: "is a link",
    tarfile.SYMTYPE: "is a link",
    tarfile.CHRTYPE: "is a device",
    tarfile.BLKTYPE: "is a device",
    tarfile.FIFOTYPE: "is a pipe",
    _DAMAGED: "has attributes that cannot be read",
}

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)

_PACKED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\0": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
"""How compressed files begin, and what unpacks them."""


def opened(stream: IO[bytes] | HashingStream, source: Source, mode: Literal["r|", "r:"]) -> tarfile.TarFile:
    """Open an archive. Raises DataError for what is none."""
    opener: Any = tarfile.open
    try:
        archive: tarfile.TarFile = opener(fileobj=stream, mode=mode, bufsize=1 << 20, tarinfo=_Member)
    except _DAMAGE as error:
        begin = files.read_start(source.uri, 6)
        remedy = next((f": {tool} it" for mark, tool in _PACKED.items() if begin.startswith(mark)), "")
        detail = f"{source.path} is not an uncompressed tar ({error}){remedy}"
        raise DataError(Reason.SOURCE_UNREADABLE, detail) from error
    return archive


class _Member(tarfile.TarInfo):
    """A header of a tar. Raises ReadError before too much would be read for a name.

    Attributes and maps of holes are read here: tarfile's own ways take time by the square of their length,
    keep all of them, and go on in a sum that nothing bounds.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:  # tarfile would go back, and read the same members for ever
            raise tarfile.ReadError(f"a member of {member.size} bytes")
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


def members_of(archive: tarfile.TarFile, source: Source, damage: list[str]) -> Iterator[tarfile.TarInfo]:
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
        if not member.isdir() and split(member.name)[0]:  # what is not a file is a dead letter, see `_load`
            yield member


def split(name: str) -> tuple[str, str]:
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


def data_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read a member. Raises DataError where the archive ends inside it."""
    opened = archive.extractfile(member)
    try:
        data = opened.read() if opened else b""
    except tarfile.ReadError as error:
        raise DataError(Reason.SOURCE_TRUNCATED, f"{member.name}: {error}") from error
    if len(data) != member.size:
        raise DataError(Reason.SOURCE_TRUNCATED, f"{member.name}: the archive ends inside it")
    return data
