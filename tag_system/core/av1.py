"""The size of pictures in AV1, the code of AVIF, as a decoder will see them: a container may say another."""

from collections.abc import Iterator

from tagmill.tag_system.core.errors import DataError, Reason

MAX_ITEMS = 1_000
"""Items of an AVIF: tiles, transparency, notes; a grid has up to 256 tiles of each."""

_SEQUENCE = 1


def item_data(data: bytes, iloc: int, idat: int) -> Iterator[bytes]:
    """Give the bytes of a file's items; `iloc` and `idat` are where the contents of these boxes begin.

    Raises IndexError for what cannot be followed, and DataError for too many items.
    """
    version, sizes, more = data[iloc], data[iloc + 4], data[iloc + 5]
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    index_size = more & 15 if version else 0
    numbers = _Numbers(data, iloc + 6)
    count = numbers.take(4 if version == 2 else 2)
    left = len(data)
    if count > MAX_ITEMS:
        raise DataError(Reason.IMAGE_TOO_LARGE, f"an AVIF of {count} items: save it anew")
    for _ in range(count):
        numbers.take(4 if version == 2 else 2)
        method = numbers.take(2) & 15 if version else 0
        numbers.take(2)
        base = numbers.take(base_size) + (idat if method == 1 else 0)
        pieces = []
        for _ in range(numbers.take(2)):
            numbers.take(index_size)
            start = base + numbers.take(offset_size)
            piece = data[start : start + (numbers.take(length_size) or len(data))]
            left -= len(piece)
            if left < 0:  # items that lie over each other
                raise DataError(Reason.IMAGE_TOO_LARGE, "an AVIF whose items share their bytes: save it anew")
            pieces.append(piece)
        yield b"".join(pieces)


class _Numbers:
    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place

    def take(self, size: int) -> int:
        """Read a number of so many bytes; 0 of none."""
        found = self._data[self._place : self._place + size]
        if len(found) < size:
            raise IndexError("the box ends early")
        self._place += size
        return int.from_bytes(found)


def sizes(item: bytes) -> Iterator[tuple[int, int]]:
    """Read the width and height of each sequence in an item; what is no AV1 has none."""
    place = 0
    while place < len(item):
        head = item[place]
        place += 2 if head & 4 else 1
        size = len(item) - place
        if head & 2:
            size = shift = 0
            while True:
                size |= (item[place] & 127) << shift
                shift += 7
                place += 1
                if not item[place - 1] & 128:
                    break
                if shift > 56:
                    return
        if head >> 3 & 15 == _SEQUENCE:
            yield _sequence_size(item[place : place + min(size, 256)])
        place += size


def _sequence_size(data: bytes) -> tuple[int, int]:
    value, left = int.from_bytes(data), 8 * len(data)

    def take(count: int) -> int:
        nonlocal left
        left -= count
        if left < 0:
            raise IndexError("the header ends early")
        return value >> left & ((1 << count) - 1)

    take(4)
    if take(1):  # the short header of a still picture
        take(5)
    else:
        if take(1):
            raise DataError(Reason.IMAGE_FORMAT, "a film in AV1: save one of its pictures by itself")
        has_delay = take(1)
        for _ in range(take(5) + 1):
            take(12)
            if take(5) > 7:
                take(1)
            if has_delay and take(1):
                take(4)
    wide, high = take(4) + 1, take(4) + 1
    return take(wide) + 1, take(high) + 1
