"""The headers of GIF, BMP and TIFF; see `containers`, which says what is asked of them."""

import struct

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.core.image_header import BYTES_A_PIXEL, MAX_PIECES, RESULT, SPARE, ImageHeader

MAX_BLOCKS = 1 << 20
"""Blocks of up to 255 bytes that may come before the first picture of a GIF."""

MAX_STRIPS = 100_000
"""Strips or tiles of a TIFF."""

_BMP_COMPRESSIONS = (0, 3)
"""None, and none with masks of bits."""

_TIFF_KEPT = frozenset(
    map(
        int,
        [
            "256",
            "257",
            "258",
            "259",
            "262",
            "266",
            "273",
            "274",
            "277",
            "278",
            "279",
            "284",
            "317",
            "320",
            "322",
            "323",
            "324",
            "325",
            "338",
            "339",
            "347",
            "530",
        ],
    )
)
"""Tags that say something of the pixels; 274 is the orientation."""

_TIFF_PLACES = frozenset({273, 279, 324, 325})
_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TIFF_NUMBERS = {1: "B", 3: "H", 4: "I"}
_TIFF_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "Deflate", 32773: "PackBits", 32946: "Deflate"}
_TIFF_COLOURS = frozenset({0, 1, 2, 3, 5, 6})
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _SAMPLES, _ROWS = 256, 257, 258, 259, 262, 277, 278
_TILE_WIDTH, _TILE_HEIGHT, _NUMBERS = 322, 323, 339


def gif(data: bytes) -> ImageHeader:
    """Read the header of a GIF up to its first picture; what comes before that is left out if it is long.

    Raises DataError for more than `MAX_PIECES` extensions or `MAX_BLOCKS` blocks of them.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    start = place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    extensions = blocks = 0
    while data[place] == 0x21:
        begun, kind = place, data[place + 1]
        place += 2
        while data[place]:
            place += 1 + data[place]
            blocks += 1
        place += 1
        extensions += 1
        if extensions > MAX_PIECES or blocks > MAX_BLOCKS:
            raise DataError(Reason.IMAGE_TOO_LARGE, "too many blocks before the first picture: save it anew")
        if kind == 0xF9:
            control = data[begun:place]
    copied = 0
    if data[place] == 0x2C:
        left, top, wide, high = struct.unpack_from("<HHHH", data, place + 1)
        width, height = max(width, left + wide), max(height, top + high)
        if place - start > SPARE or extensions > 2:
            data = data[:start] + control + data[place:]
            copied = len(data)
    return ImageHeader(data, width, height, BYTES_A_PIXEL["GIF"] * width * height + copied)


def bmp(data: bytes) -> ImageHeader:
    """Read the header of a BMP. Raises DataError for one that is compressed."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
        if struct.unpack_from("<I", data, 30)[0] not in _BMP_COMPRESSIONS:
            raise DataError(Reason.IMAGE_FORMAT, "a compressed BMP: save it as PNG")
    width, height = abs(width), abs(height)
    return ImageHeader(data, width, height, BYTES_A_PIXEL["BMP"] * width * height)


def tiff(data: bytes) -> ImageHeader:
    """Read the first directory of a TIFF, and give the file with nothing in it but what the pixels need.

    Raises DataError for a kind of TIFF that is not decoded, and more than `MAX_STRIPS` strips or tiles.
    """
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] != 42:
        raise DataError(Reason.IMAGE_FORMAT, "a TIFF of more than 4 GB (BigTIFF): save it as PNG")
    directory = _TiffDirectory(data, order)
    directory.check()
    width, height = directory.number(_WIDTH, 0), directory.number(_HEIGHT, 0)
    if directory.has(_TILE_WIDTH):
        buffer = directory.number(_TILE_WIDTH, 0) * directory.number(_TILE_HEIGHT, 0)
    else:
        buffer = width * min(height, directory.number(_ROWS, height))
    pixel = max(RESULT, 2 * directory.number(_SAMPLES, 1))
    reduced = directory.reduced()
    return ImageHeader(
        reduced, width, height, 2 * RESULT * width * height + pixel * buffer + 2 * len(reduced)
    )


class _TiffDirectory:
    """The tags of a TIFF's first picture that say something of its pixels."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data, self._order = data, order
        (place,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, place)
        self._entries: dict[int, bytes] = {}
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
            if tag not in _TIFF_KEPT or kind not in _TIFF_TYPES:
                continue
            if number > MAX_STRIPS or (tag not in _TIFF_PLACES and number * _TIFF_TYPES[kind] > SPARE):
                raise DataError(Reason.IMAGE_TOO_LARGE, f"a TIFF with {number} values of the tag {tag}")
            self._entries[tag] = data[entry : entry + 12]

    def has(self, tag: int) -> bool:
        """Tell whether a tag is there."""
        return tag in self._entries

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Give the whole numbers of a tag; none if there are no such."""
        entry = self._entries.get(tag, bytes(12))
        _, kind, count = struct.unpack_from(self._order + "HHI", entry)
        if kind not in _TIFF_NUMBERS:
            return ()
        form = f"{self._order}{count}{_TIFF_NUMBERS[kind]}"
        if struct.calcsize(form) <= 4:
            return struct.unpack_from(form, entry, 8)
        return struct.unpack_from(form, self._data, struct.unpack_from(self._order + "I", entry, 8)[0])

    def number(self, tag: int, default: int) -> int:
        """Give the largest number of a tag."""
        return max(self.numbers(tag), default=default)

    def check(self) -> None:
        """Raise DataError for a kind of TIFF that is not decoded."""
        compression, bits = self.number(_COMPRESSION, 1), self.number(_BITS, 1)
        colours, numbers = self.number(_COLOURS, 0), self.number(_NUMBERS, 1)
        wrong = ""
        if compression not in _TIFF_COMPRESSIONS:
            wrong = f"compressed by method {compression}"
        elif bits > 16 or numbers != 1:
            wrong = f"of {bits}-bit {'numbers with a sign or a point' if numbers != 1 else 'numbers'}"
        elif colours not in _TIFF_COLOURS or self.number(_SAMPLES, 1) > 5:
            wrong = f"of colours of kind {colours}, {self.number(_SAMPLES, 1)} a pixel"
        if wrong:
            raise DataError(Reason.IMAGE_FORMAT, f"a TIFF {wrong}: save it as PNG, or as TIFF of 8 bits")

    def reduced(self) -> bytes:
        """Give the file with a directory of these tags alone, at its end."""
        start = len(self._data) + len(self._data) % 2
        entries = b"".join(self._entries[tag] for tag in sorted(self._entries))
        head = self._data[:4] + struct.pack(self._order + "I", start)
        directory = struct.pack(self._order + "H", len(self._entries)) + entries + bytes(4)
        return b"".join((head, memoryview(self._data)[8:], b"\0" * (len(self._data) % 2), directory))
