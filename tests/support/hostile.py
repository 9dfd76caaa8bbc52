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


def flat_png(side: int, depth: int, colour: int, extra: bytes = b"") -> bytes:
    """A square PNG of zeros, whole and small: `side` is a multiple of 100."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = bytes(100 * (1 + side * samples * depth // 8))
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(rows) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    whole = chunk(b"IHDR", header) + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


PALETTE = chunk(b"PLTE", bytes(range(30))) + chunk(b"tRNS", b"\x05")


def animated_webp(side: int, picture: bytes, frames: int = 2) -> bytes:
    """An animation on a square canvas of `side`, of a lossless WebP of 16 x 16, in a few hundred bytes."""
    canvas = struct.pack("<I", side - 1)[:3] * 2
    frame = bytes(6) + struct.pack("<I", 15)[:3] * 2 + bytes(4) + picture[picture.index(b"VP8L") :]
    body = riff(b"VP8X", b"\x12\0\0\0" + canvas) + riff(b"ANIM", bytes(6)) + riff(b"ANMF", frame) * frames
    return webp(body)


def riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def scanned_jpeg(progressive: bytes, scans: int) -> bytes:
    """Repeat the last scan of a progressive JPEG."""
    start = progressive.rindex(b"\xff\xda")
    return progressive[:start] + progressive[start:-2] * scans + b"\xff\xd9"


def stuffed_jpeg(data: bytes, segments: bytes) -> bytes:
    """A JPEG with more segments at its beginning."""
    return data[:2] + segments + data[2:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content
