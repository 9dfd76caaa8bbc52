"""Hostile inputs by the hundred: each is a tar in which a good example stands beside a bad one."""

import io
import json
import random
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image as pillow

from hostile import PALETTE, animated_webp, chunk, flat_png, scanned_jpeg, segment, stuffed_jpeg, webp
from sources import encode, square_image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
GOOD = ("zz", "red")
"""Key and colour of the example that must live, where the tar itself is whole."""


@dataclass(frozen=True)
class Hostile:
    """An input: the bytes of its tar, and whether the tar can be read to its end."""

    name: str
    tar: bytes
    is_whole: bool = True


def inputs() -> Iterator[Hostile]:
    """Give all of them, the same at each call."""
    for name, data, extension in _images():
        yield Hostile(f"image: {name}", _tar({f"a.{extension}": data}))
    for name, text in _records():
        yield Hostile(f"record: {name}", _tar({"a.png": _image("PNG"), "a.json": text}))
    yield from _tars()


def huge() -> Iterator[Hostile]:
    """Give images that are small on disk and huge in memory: some fit into a worker's budget, alone."""
    for side in HUGE_SIDES:
        for kind, bomb in BOMBS.items():
            yield Hostile(f"image: {kind} of {side} x {side}", _tar({"a.png": bomb(side)}))


def _flat(side: int, format_: str, mode: str = "RGB", **options: object) -> bytes:
    sink = io.BytesIO()
    pillow.new(mode, (side, side), (9, 8, 200, 30)[: len(mode)]).save(sink, format_, **options)
    return sink.getvalue()


HUGE_SIDES = (7_000, 9_000)

BOMBS: dict[str, Callable[[int], bytes]] = {
    "animation": lambda side: animated_webp(side, _lossless()),
    "palette": lambda side: flat_png(side, 8, 3, PALETTE),
    "rgba of 16 bits": lambda side: flat_png(side, 16, 6),
    "grey of 16 bits": lambda side: flat_png(side, 16, 0),
    "progressive": lambda side: _flat(side, "JPEG", progressive=True, subsampling=0),
    "cmyk": lambda side: _flat(side, "JPEG", "CMYK", progressive=True),
    "lossless webp": lambda side: _flat(side, "WEBP", "RGBA", lossless=True, method=0, quality=0),
}


def _image(format_: str) -> bytes:
    sink = io.BytesIO()
    square_image(["blue"], 3).save(sink, format_)
    return sink.getvalue()


def _lossless() -> bytes:
    sink = io.BytesIO()
    pillow.new("RGB", (16, 16), "blue").save(sink, "WEBP", lossless=True)
    return sink.getvalue()


def _images() -> Iterator[tuple[str, bytes, str]]:
    dice = random.Random(11)
    for format_ in FORMATS:
        whole, extension = _image(format_), format_.lower().replace("jpeg", "jpg").replace("tiff", "tif")
        for share in (0.0, 0.02, 0.3, 0.7, 0.99):
            yield f"{format_} cut at {share:.0%}", whole[: int(len(whole) * share)], extension
        for number in range(7):
            data = bytearray(whole)
            for _ in range(1 + 3 * number):
                data[dice.randrange(min(len(data), 40 << number))] ^= 1 << dice.randrange(8)
            yield f"{format_} with {1 + 3 * number} flipped bits", bytes(data), extension
    huge = struct.pack(">II", 60_000, 60_000)
    png = _image("PNG")
    yield "PNG of 60,000 x 60,000", png[:16] + huge + png[24:], "png"
    yield "PNG of no size", png[:16] + bytes(8) + png[24:], "png"
    yield "PNG without its palette", flat_png(100, 8, 3), "png"
    yield "PNG of 10,000 x 10,000", flat_png(10_000, 8, 2), "png"
    yield "PNG of 16-bit RGBA", flat_png(9_000, 16, 6), "png"
    yield (
        "PNG with a megabyte of text chunks",
        png[:33] + chunk(b"tEXt", b"a\0" + b"x" * 1000) * 1000 + png[33:],
        "png",
    )
    yield "animated WebP of 10,000 x 10,000", animated_webp(10_000, _lossless()), "webp"
    yield "WebP without a picture", webp(b""), "webp"
    jpeg = _image("JPEG")
    progressive = io.BytesIO()
    square_image(["blue"]).save(progressive, "JPEG", progressive=True)
    yield "JPEG with thousands of scans", scanned_jpeg(progressive.getvalue(), 5_000), "jpg"
    yield (
        "JPEG with 20 MB of EXIF",
        stuffed_jpeg(jpeg, segment(0xE1, b"Exif\0\0" + b"x" * 60_000) * 340),
        "jpg",
    )
    yield "an SVG called jpg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "jpg"
    yield "a zip called png", b"PK\x03\x04" + bytes(200), "png"
    yield "text called webp", b"hello" * 100, "webp"
    yield "16 MB of zeros called jpg", bytes(16 << 20), "jpg"


def _records() -> Iterator[tuple[str, bytes]]:
    texts: dict[str, str] = {
        "empty": "",
        "null": "null",
        "a number": "7",
        "a list": "[1, 2]",
        "a text": '"a dog"',
        "cut": '{"captions": ["a do',
        "NaN": '{"meta": NaN}',
        "infinity": '{"score": 1e999}',
        "a number of 5,000 digits": '{"n": ' + "9" * 5_000 + "}",
        "50,000 brackets": "[" * 50_000,
        "50,000 nested objects": '{"a":' * 50_000,
        "a name twice": '{"caption": "a", "caption": "b"}',
        "20,000 names, one twice": "{" + ",".join(f'"k{i}": 1' for i in range(20_000)) + ', "k0": 2}',
        "a lone surrogate": '{"caption": "\\ud800"}',
        "NUL in a caption": '{"caption": "a\\u0000dog"}',
        "escapes in a caption": '{"caption": "\\u001b[2J\\u202egod"}',
        "a caption that is a list of lists": '{"captions": [["a"], {"b": 1}]}',
        "a caption of 3 MB": json.dumps({"caption": "dog " * 750_000}),
        "200,000 empty captions": json.dumps({"captions": [""] * 200_000}),
        "100,000 captions": json.dumps({"captions": ["a dog"] * 100_000}),
        "50,000 labels": json.dumps({"labels": ["dog"] * 50_000}),
        "a box of NaN": '{"labels": [{"name": "dog", "box": [NaN, 0, 1, 1]}]}',
        "a box of huge numbers": '{"labels": [{"name": "dog", "box": [1e308, 0, 1e309, 1]}]}',
        "labels that are a number": '{"labels": 5}',
        "a split of another name": '{"split": "nonsense"}',
        "a split that is a list": '{"split": ["train"]}',
        "4 MB of meta": json.dumps({"text": "x" * (4 << 20)}),
        "1 MB of escapes": '{"caption": "' + "\\u0041" * 170_000 + '"}',
    }
    for name, text in texts.items():
        yield name, text.encode()
    yield "bytes that are not UTF-8", b'{"caption": "\xff\xfe"}'
    yield "UTF-16", '{"caption": "a dog"}'.encode("utf-16")
    yield "a byte order mark", b"\xef\xbb\xbf" + b'{"caption": "a dog"}'


def _tars() -> Iterator[Hostile]:
    dice = random.Random(13)
    whole = _tar({"a.png": _image("PNG"), "a.txt": b"a dog"})
    for share in (0.01, 0.2, 0.5, 0.9):
        yield Hostile(f"tar: cut at {share:.0%}", whole[: int(len(whole) * share)], is_whole=False)
    for number in range(12):
        data = bytearray(whole)
        for _ in range(1 + number):
            data[dice.randrange(512)] ^= 1 << dice.randrange(8)
        yield Hostile(f"tar: {1 + number} flipped bits in its first header", bytes(data), is_whole=False)
    kinds = {
        "a symbolic link": tarfile.SYMTYPE,
        "a hard link": tarfile.LNKTYPE,
        "a FIFO": tarfile.FIFOTYPE,
        "a device": tarfile.CHRTYPE,
        "a folder": tarfile.DIRTYPE,
        "an unknown kind": b"Z",
    }
    for name, kind in kinds.items():
        yield Hostile(f"tar: {name} called a.png", _tar({"a.png": b""}, kind))
    for name in ("../../a.png", "/etc/a.png", "a\nb.png", "\x1b[31ma.png", "‮gnp.a.png", "a" * 3000 + ".png"):
        yield Hostile(f"tar: a member called {name[:20]!a}", _tar({name: _image("PNG")}))
    yield Hostile(
        "tar: attributes of 80,000 digits",
        _tar({"a.png": _image("PNG")}, pax={"size": "9" * 80_000}),
        is_whole=False,
    )
    yield Hostile(
        "tar: attributes of 2 MB",
        _tar({"a.png": _image("PNG")}, pax={"comment": "x" * (2 << 20)}),
        is_whole=False,
    )
    for blocks in (-1, -2, -(1 << 40)):
        yield Hostile(f"tar: a second member of {blocks} blocks", _backwards(whole, blocks), is_whole=False)
    yield Hostile("tar: nothing", b"", is_whole=False)
    yield Hostile("tar: zeros", bytes(10_240), is_whole=False)
    yield Hostile("tar: text", b"this is not a tar\n" * 600, is_whole=False)
    yield Hostile("tar: the same member 500 times", _repeated(500))


def _tar(
    members: dict[str, bytes], kind: bytes = tarfile.REGTYPE, pax: dict[str, str] | None = None
) -> bytes:
    """Write members, of which the first is of a kind, and after them the good example."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(data), "/etc/passwd"
            info.pax_headers = pax or {}
            archive.addfile(info, io.BytesIO(data))
            kind, pax = tarfile.REGTYPE, None
        _add_good(archive)
    return sink.getvalue()


def _backwards(data: bytes, blocks: int) -> bytes:
    """Let the second header of a tar say that its member ends so many blocks after it begins."""
    place = 512 + -(-tarfile.nti(data[124:136]) // 512) * 512
    header = bytearray(data[place : place + 512])
    header[124:136] = tarfile.itn(512 * blocks, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]


def _repeated(count: int) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for _ in range(count):
            info = tarfile.TarInfo("a.png")
            data = _image("PNG")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        _add_good(archive)
    return sink.getvalue()


def _add_good(archive: tarfile.TarFile) -> None:
    key, colour = GOOD
    data = encode(square_image([colour]))
    info = tarfile.TarInfo(f"{key}.png")
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
