"""Bytes that no camera writes: crafted image headers and damaged tars."""

import struct
import zlib


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes = b"", extra: bytes = b""
) -> bytes:
    """A PNG of any size on paper; `rows` are the filtered rows, `extra` chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def resized_jpeg(data: bytes, width: int, height: int) -> bytes:
    """Write another size into a baseline JPEG's header."""
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]
