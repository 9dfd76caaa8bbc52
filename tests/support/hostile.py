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


def box(name: bytes, *content: bytes) -> bytes:
    """A box of the containers of AVIF, HEIC and JPEG XL."""
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + name + data


def canvas_of_items(brand: bytes, width: int, height: int) -> bytes:
    """An AVIF or HEIC of any size on paper, behind a thumbnail."""
    sizes = (box(b"ispe", struct.pack(">III", 0, w, h)) for w, h in ((16, 16), (width, height)))
    meta = box(b"meta", bytes(4), box(b"iprp", box(b"ipco", *sizes)))
    return box(b"ftyp", brand, bytes(4), brand, b"mif1") + meta


def tiff_header(*entries: tuple[int, int, int]) -> bytes:
    """A TIFF of nothing but a directory: tag, how many numbers, and the one or where they are."""
    packed = b"".join(struct.pack("<HHII", tag, 4, *rest) for tag, *rest in entries)
    return struct.pack("<4sIH", b"II*\0", 8, len(entries)) + packed + bytes(4)


def avif_in_disguise(data: bytes, side: int) -> bytes:
    """An AVIF of `side` x `side` whose container says 16 x 16."""
    return data.replace(struct.pack(">II", side, side), struct.pack(">II", 16, 16))


HUGE = {
    "gif": struct.pack("<6sHHBBB", b"GIF89a", 60_000, 60_000, 0, 0, 0) + b";",
    "gif with a larger picture": struct.pack("<6sHHBBB", b"GIF89a", 8, 8, 0, 0, 0)
    + struct.pack("<BHHHHB", 0x2C, 0, 0, 60_000, 60_000, 0),
    "gif of blocks": b"GIF89a" + bytes(7) + b"!\xfe\1x\0" * 20_000,
    "bmp": b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, -60_000, 1, 24, 0),
    "tiff": tiff_header((256, 1, 60_000), (257, 1, 60_000)),
    "tiff of a huge tile": tiff_header((256, 1, 9), (257, 1, 9), (322, 1, 60_000), (323, 1, 60_000)),
    "tiff of a million strips": tiff_header((256, 1, 9), (257, 1, 9), (273, 1_000_000, 0)),
    "avif": canvas_of_items(b"avif", 60_000, 60_000),
    "heic": canvas_of_items(b"heic", 60_000, 60_000),
    "heic of boxes": box(b"ftyp", b"heic", bytes(4)) + box(b"free") * 20_000,
    # A size of 60,000 with no ratio of sides, twice, lowest bits first.
    "jpeg xl": b"\xff\x0a"
    + (0 | 2 << 1 | 59_999 << 3 | 0 << 21 | 2 << 24 | 59_999 << 26).to_bytes(9, "little"),
}
"""Headers of pictures that are huge on paper, without the pictures."""
