"""What the containers of images say before a decoder is asked: size, memory, scans, other contents.

A file may hold any number of chunks that say nothing of its pixels. Pillow reads them one by one and keeps
copies. `read` passes over them fast, and where they are many or long gives the file without them.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from tagmill.tag_system.core import bitmap_containers, box_containers
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.core.image_header import BYTES_A_PIXEL, MAX_PIECES, RESULT, SPARE, ImageHeader

MAX_SCANS = 100
"""Scans of a JPEG, each of which goes over all of the picture; cameras and optimizers write up to 20."""

_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_MOVING = frozenset({b"acTL", b"fcTL", b"fdAT"})
_PNG_CHUNK = 12
_EXIF_BYTES = 64 << 10

_MARKS = {
    _PNG_MARK: "PNG",
    b"\xff\xd8": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    box_containers.JXL_BARE: "JXL",
    box_containers.JXL_BOX: "JXL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "ICO",
    b"8BPS": "Photoshop",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"DDS ": "DDS",
    b"#?RADIANCE": "Radiance HDR",
    b"v/1\1": "OpenEXR",
    b"qoif": "QOI",
}
"""How a file begins, by its format; those not in `BYTES_A_PIXEL` are not decoded."""

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_MULTIPLE = frozenset({0xC2, 0xC3, 0xC6, 0xCA, 0xCE})
"""Frames whose picture comes in several scans, as a rule."""
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_FILL = re.compile(rb"[^\xff]*\xff+")
_MARKER_IN_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")

_WEBP_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM"})
_WEBP_FLAGS = ~(0x20 | 0x04)
"""Of `VP8X`: without those of the colour profile and of XMP."""


def read(data: bytes) -> ImageHeader:
    """Read the container of an image. What cannot be followed is left as it is.

    Raises DataError for more than `MAX_SCANS` scans, `MAX_PIECES` pieces and the like, and for kinds of a
    format that are not decoded.
    """
    format_ = ""
    try:
        format_ = _format_of(data)
        if format_ in _READERS:
            return replace(_READERS[format_](data), format=format_)
    except (struct.error, IndexError):
        pass
    return ImageHeader(data, format=format_)


def _format_of(data: bytes) -> str:
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return box_containers.brand(data)


class _Kept:
    """The spans of a file that a decoder needs; those that lie together are one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._spans: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> None:
        """Add a span that lies behind the others. Raises DataError for too many."""
        if self._spans and self._spans[-1][1] == start:
            start = self._spans.pop()[0]
        self._spans.append((start, stop))
        if len(self._spans) > MAX_PIECES:
            detail = f"its bytes lie scattered in more than {MAX_PIECES} pieces: save it anew"
            raise DataError(Reason.IMAGE_TOO_LARGE, detail)

    def joined(self) -> bytes:
        """Copy the spans into one."""
        view = memoryview(self._data)
        return b"".join(view[start:stop] for start, stop in self._spans)


def _png(data: bytes) -> ImageHeader:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    kept = _Kept(data)
    spare = stripped = copied = 0
    moving = False
    exif = False
    place = len(_PNG_MARK)
    while place + _PNG_CHUNK <= len(data):
        (size,) = struct.unpack_from(">I", data, place)
        kind, stop = data[place + 4 : place + 8], place + _PNG_CHUNK + size
        whole = kind in _PNG_KEPT and not (kind == b"IDAT" and size == 0)
        if whole or (kind == b"eXIf" and not exif and size <= _EXIF_BYTES):
            exif |= kind == b"eXIf"
            kept.add(place, stop)
        else:
            spare += _PNG_CHUNK + size
            stripped += 1
            moving |= kind in _PNG_MOVING
        place = stop
        if kind == b"IEND":
            break
    if moving or spare > SPARE or stripped > SPARE // _PNG_CHUNK:
        data = _PNG_MARK + kept.joined()
        copied = len(data)
    stored = 4 if colour in (2, 4, 6) else 2 if depth == 16 else 1
    return ImageHeader(data, width, height, (stored + RESULT) * width * height + copied)


def _jpeg(data: bytes) -> ImageHeader:
    kept = _Kept(data)
    kept.add(0, 2)
    end, spare, copied = 2, 0, 0
    frame = _JpegFrame()
    exif = False
    for marker, start, body, stop in _segments(data):
        if marker in _JPEG_FRAMES:
            frame = _JpegFrame.read(data, marker, body)
        is_exif = marker == 0xE1 and data.startswith(b"Exif\0\0", body)
        is_note = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not is_note or marker in (0xE0, 0xEE) or (is_exif and not exif):
            spare += start - end
            if marker == _JPEG_SCAN:
                end = start
                frame.is_multiple |= data[body] < len(frame.factors)
                break
            kept.add(start, stop)
            end = stop
        exif |= is_exif
    if frame.is_multiple and data.count(b"\xff\xda") > MAX_SCANS:  # of another, libjpeg reads one scan
        _check_scans(data, end)
    if spare > SPARE:
        kept.add(end, len(data))
        data = kept.joined()
        copied = len(data)
    return ImageHeader(data, frame.width, frame.height, frame.memory() + copied)


@dataclass
class _JpegFrame:
    """What a JPEG's header says of its picture; `factors` say how each component is sampled."""

    width: int = 0
    height: int = 0
    factors: tuple[tuple[int, int], ...] = ()
    is_multiple: bool = False

    @classmethod
    def read(cls, data: bytes, marker: int, body: int) -> "_JpegFrame":
        height, width, components = struct.unpack_from(">HHB", data, body + 1)
        factors = tuple(divmod(data[body + 7 + 3 * n], 16) for n in range(components))
        return cls(width, height, factors, marker in _JPEG_MULTIPLE)

    def memory(self) -> int:
        """Bound the memory: a picture of several scans is held in whole blocks of numbers of two bytes."""
        pixels = self.width * self.height
        stored = 1 if len(self.factors) == 1 else 4
        more = RESULT * pixels
        if self.is_multiple and self.factors:
            wide, high = max(1, *(h for h, _ in self.factors)), max(1, *(v for _, v in self.factors))
            across, down = math.ceil(self.width / (8 * wide)), math.ceil(self.height / (8 * high))
            more = max(more, 2 * sum(64 * h * v * across * down for h, v in self.factors))
        return stored * pixels + more


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Give the segments of a JPEG up to its first scan: marker, start, start of the content, end."""
    place = 2
    while found := _FILL.match(data, place):
        start, marker, place = found.end() - 1, data[found.end()], found.end() + 1
        if marker in _JPEG_BARE:
            continue
        if marker == _JPEG_END:
            return
        (size,) = struct.unpack_from(">H", data, place)
        yield marker, start, place + 2, place + size
        place += size


def _check_scans(data: bytes, place: int) -> None:
    """Raise DataError if more than `MAX_SCANS` scans begin from `place` on."""
    scans = 0
    while found := _MARKER_IN_SCAN.search(data, place):
        marker, place = data[found.end() - 1], found.end()
        if marker == _JPEG_END:
            return
        scans += marker == _JPEG_SCAN
        if scans > MAX_SCANS:
            detail = f"a JPEG of more than {MAX_SCANS} scans: save it anew"
            raise DataError(Reason.IMAGE_TOO_LARGE, detail)
        if marker not in _JPEG_BARE:
            place += struct.unpack_from(">H", data, place)[0]


def _webp(data: bytes) -> ImageHeader:
    kept = _Kept(data)
    width = height = spare = frames = exifs = copied = 0
    for kind, start, stop in _webp_chunks(data):
        wide, high = _webp_size(data, kind, start + 8)
        width, height = max(width, wide), max(height, high)
        frames += kind == b"ANMF"
        exifs += kind == b"EXIF"
        if (
            kind in _WEBP_KEPT
            or (kind == b"ANMF" and frames == 1)
            or (kind == b"EXIF" and exifs == 1 and stop - start <= _EXIF_BYTES)
        ):
            kept.add(start, stop)
        else:
            spare += stop - start
    if spare > SPARE:
        data = _without_flags(kept.joined())
        copied = len(data)
    return ImageHeader(data, width, height, BYTES_A_PIXEL["WEBP"] * width * height + copied)


def _webp_size(data: bytes, kind: bytes, place: int) -> tuple[int, int]:
    """Read the width and height that a chunk notes; (0, 0) of one that notes none."""
    if kind == b"VP8X":
        return 1 + _u24(data, place + 4), 1 + _u24(data, place + 7)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, place + 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, place + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 0, 0


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give the chunks of a WebP: name, where it starts, and where the next one does."""
    place = 12
    while place + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, place + 4)
        stop = place + 8 + size + size % 2
        yield data[place : place + 4], place, min(stop, len(data))
        place = stop


def _without_flags(chunks: bytes) -> bytes:
    """Make a WebP of chunks; it claims no metadata but EXIF."""
    if chunks.startswith(b"VP8X"):
        chunks = chunks[:8] + bytes([chunks[8] & _WEBP_FLAGS & 0xFF]) + chunks[9:]
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _u24(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 3], "little")


_READERS: dict[str, Callable[[bytes], ImageHeader]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": bitmap_containers.gif,
    "BMP": bitmap_containers.bmp,
    "TIFF": bitmap_containers.tiff,
    "AVIF": partial(box_containers.items, kind="AVIF"),
    "HEIF": partial(box_containers.items, kind="HEIF"),
    "JXL": box_containers.jxl,
}
