"""The headers of AVIF, HEIC and JPEG XL; see `containers`, which says what is asked of them."""

import math
import struct
from collections.abc import Iterator

from tagmill.tag_system.core import av1
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.core.image_header import BYTES_A_PIXEL, MAX_PIECES, ImageHeader

JXL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n"
JXL_BARE = b"\xff\x0a"

MAX_CHANNELS = 4
"""Channels of a JPEG XL besides those of its colours: transparency, depth and the like."""

_AVIF = frozenset({b"avif"})
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis"})
_MOVING = frozenset({b"avis", b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"})

_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_OPAQUE = 16
"""Bytes of a pixel of an AVIF or HEIC without transparency, see `BYTES_A_PIXEL`."""

_JXL_SIZES = (9, 13, 18, 30)
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def brand(data: bytes) -> str:
    """Tell AVIF from HEIF, the format of HEIC, by the file's brands; "" for what is neither.

    Raises DataError for a film of pictures.
    """
    if data[4:8] != b"ftyp":
        return ""
    stop = min(struct.unpack_from(">I", data)[0], 256)
    major, others = data[8:12], {data[place : place + 4] for place in range(16, stop - 3, 4)}
    if major in _MOVING:
        raise DataError(Reason.IMAGE_FORMAT, "a film of AVIF or HEIC pictures: save one of them by itself")
    if major in _AVIF or (major == b"mif1" and others & _AVIF):
        return "AVIF"
    return "HEIF" if major in _HEIF or (major == b"mif1" and others & _HEIF) else ""


def items(data: bytes, kind: str) -> ImageHeader:
    """Read the sizes of the pictures in an AVIF or HEIC: the largest is its canvas, the others are tiles.

    Of AVIF, the coded pictures are asked, too; the decoder of HEIC goes by the container alone.
    """
    width = height = iloc = idat = 0
    pixel = _OPAQUE
    for name, start, stop in _boxes(data, 0, len(data)):
        if name == b"moov":
            raise DataError(
                Reason.IMAGE_FORMAT, "a film of AVIF or HEIC pictures: save one of them by itself"
            )
        if name == b"meta":
            for what, begin, end in _properties(data, start + 4, stop):
                if what == b"auxC" and data[begin + 4 : end].startswith(_ALPHA):
                    pixel = BYTES_A_PIXEL[kind]
                elif what == b"ispe":
                    size = struct.unpack_from(">II", data, begin + 4)
                    width, height = max((width, height), size, key=math.prod)
                iloc = begin if what == b"iloc" else iloc
                idat = begin if what == b"idat" else idat
    if kind == "AVIF" and iloc:
        found = (size for item in av1.item_data(data, iloc, idat) for size in av1.sizes(item))
        width, height = max([(width, height), *found], key=math.prod)
    return ImageHeader(data, width, height, pixel * width * height)


def _properties(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    for name, begin, end in _boxes(data, start, stop):
        if name in (b"iprp", b"ipco"):
            yield from _properties(data, begin, end)
        else:
            yield name, begin, end


def _boxes(data: bytes, place: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Give the boxes between two places: name, and where the content begins and ends."""
    count = 0
    while place + 8 <= stop:
        size, name = struct.unpack_from(">I4s", data, place)
        begin = place + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin)
            begin += 8
        end = min(place + size, stop) if size else stop
        if end < begin:
            return
        yield name, begin, end
        place = end
        count += 1
        if count > MAX_PIECES:
            raise DataError(Reason.IMAGE_TOO_LARGE, f"more than {MAX_PIECES} boxes: save it anew")


def jxl(data: bytes) -> ImageHeader:
    """Read the header of a JPEG XL. Raises DataError for one that moves, or of too many channels."""
    start = 2
    if not data.startswith(JXL_BARE):
        found = (
            begin + 4 * (name == b"jxlp")
            for name, begin, _ in _boxes(data, 0, len(data))
            if name in (b"jxlc", b"jxlp")
        )
        start = 2 + next(found, len(data))
    bits = _LowBits(data[start : start + 64])
    width, height = _jxl_size(bits)
    channels = _jxl_channels(bits)
    if channels > MAX_CHANNELS:
        raise DataError(Reason.IMAGE_TOO_LARGE, f"a JPEG XL of {channels} channels besides its colours")
    return ImageHeader(data, width, height, BYTES_A_PIXEL["JXL"] * width * height)


class _LowBits:
    """Reads numbers of any count of bits, lowest first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise IndexError("the header ends early")
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return found

    def choose(self, *choices: tuple[int, int]) -> int:
        """Read which of four comes: a number of so many bits, and what is added to it."""
        count, base = choices[self.take(2)]
        return base + self.take(count)


def _jxl_size(bits: _LowBits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (1 + bits.take(5)) if small else bits.choose(*((count, 1) for count in _JXL_SIZES))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    wide, high = _JXL_RATIOS[ratio - 1]
    return height * wide // high, height


def _jxl_channels(bits: _LowBits) -> int:
    """Read how many channels there are besides the colours."""
    if bits.take(1):
        return 0
    if bits.take(1):
        bits.take(3)
        if bits.take(1):
            _jxl_size(bits)
        if bits.take(1) or bits.take(1):
            raise DataError(Reason.IMAGE_FORMAT, "a JPEG XL that moves or has a preview: save it as PNG")
    is_float = bits.take(1)
    bits.choose(*((0, 0),) * 3, (6, 1))
    if is_float:
        bits.take(4)
    bits.take(1)
    return bits.choose((0, 0), (0, 1), (4, 2), (12, 1))
