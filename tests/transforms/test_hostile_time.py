"""Sources whose bytes ask for work: what they take grows with the bytes, and not with their square."""

import io
import json
import tarfile
import time
import tracemalloc
import zlib

import pytest
from PIL import Image

from hostile import animated_webp, chunk, riff, scanned_jpeg, segment, stuffed_jpeg, webp
from ingested import check_counts, letters, rows
from odd_images import NOISE, saved
from sources import encode, square_image
from stage_runs import Bench
from tagmill.transforms import images

MB = 1 << 20
PNG = encode(square_image(["red"]))
JPEG = saved(NOISE, "JPEG")
PROGRESSIVE = saved(NOISE, "JPEG", progressive=True)
LOSSLESS = saved(Image.new("RGBA", (16, 16), (255, 0, 0, 255)), "WEBP", lossless=True)
CANVAS = b"\x0f\0\0" * 2


def tar(*members):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def header(kind, body, size=None):
    info = tarfile.TarInfo("it.png")
    info.type, info.size = kind, len(body) if size is None else size
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def of_json(text):
    return tar(("a.png", PNG), ("a.json", text), ("z.png", PNG))


def of_image(ending, data):
    return tar((f"a.{ending}", data), ("z.png", PNG))


def chunks(extra):
    return PNG[:33] + extra + PNG[33:]


def many_holes(count):
    """An old map of holes, in blocks that say that another one follows."""
    info = tarfile.TarInfo("a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    first = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    block = b"00000000001\0" * 42 + b"\1" + bytes(7)
    return bytes(first) + block * (count - 1) + block[:504] + bytes(8)


BEFORE = tar(("z.png", PNG), ("y.png", PNG))[:2048]
"""Two examples, and no end: the last one before damage dies with it."""

EMPTY = b",".join([b'""'] * 1_000_000)
PROFILE = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000))
PACKED = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(MB)))

CASES = {
    "a name again and again": (of_json(b"{" + b",".join([b'"a":1'] * 160_000) + b"}"), "record_invalid"),
    "the last of many names twice": (
        of_json(json.dumps({f"n{i}": 1 for i in range(80_000)})[:-1].encode() + b',"n79999":1}'),
        "record_invalid",
    ),
    "depth": (of_json(b'{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}"), "record_invalid"),
    "a number of 5,000 digits": (of_json(b'{"a":' + b"9" * 5_000 + b"}"), "record_invalid"),
    "many long numbers": (of_json(b'{"a":[' + b",".join([b"9" * 4_200] * 240) + b"]}"), None),
    "a fraction of a million digits": (of_json(b'{"a":0.' + b"9" * MB + b"}"), None),
    "a million captions": (of_json(b'{"captions":[' + EMPTY + b"]}"), "caption_empty"),
    "labels": (of_json(b'{"labels":[' + b",".join([b'"a"'] * 500_000) + b"]}"), "record_too_large"),
    "scans": (of_image("jpg", scanned_jpeg(PROGRESSIVE, 20_000)), "image_too_large"),
    "exif": (of_image("jpg", stuffed_jpeg(JPEG, segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 700)), None),
    "profiles": (of_image("jpg", stuffed_jpeg(JPEG, PROFILE * 700)), None),
    "segments of nothing": (of_image("jpg", stuffed_jpeg(JPEG, segment(0xEA, b"") * MB)), None),
    "fill bytes": (of_image("jpg", stuffed_jpeg(JPEG, b"\xff" * 8 * MB)), None),
    "texts": (of_image("png", chunks(chunk(b"tEXt", b"k\0" + bytes(MB)) * 50)), None),
    "packed texts": (of_image("png", chunks(PACKED * 900)), None),
    "chunks of nothing": (of_image("png", chunks(chunk(b"prIv", b"") * 600_000)), None),
    "pixels in no bytes": (of_image("png", chunks(chunk(b"IDAT", b"") * 600_000)), None),
    "metadata of a webp": (
        of_image(
            "webp",
            webp(
                riff(b"VP8X", b"\x2c\0\0\0" + CANVAS)
                + riff(b"ICCP", bytes(16 * MB))
                + LOSSLESS[LOSSLESS.index(b"VP8L") :]
                + riff(b"EXIF", bytes(16 * MB))
                + riff(b"XMP ", bytes(16 * MB))
            ),
        ),
        None,
    ),
    "frames": (of_image("webp", animated_webp(16, LOSSLESS, 100_000)), None),
    "digits for attributes": (BEFORE + header(b"x", b"1" * 80_000) + tar(("x.png", PNG)), "image_missing"),
    "attributes without end": (
        BEFORE + b"".join(header(b"x", b"1" * 40_000) for _ in range(40)),
        "source_truncated",
    ),
    "long names in a row": (
        BEFORE + header(b"L", bytes(900_000)) * 40,
        "source_truncated",
    ),
    "a map of a million holes": (BEFORE + many_holes(20_000) + bytes(10240), "image_missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_asks_for_work_takes_time_and_memory_by_its_bytes(tmp_path, case):
    data, reason = CASES[case]
    (tmp_path / "a.tar").write_bytes(data)
    bench = Bench(tmp_path / "run", part_size=100)
    start = time.process_time()
    bench.ingest(tmp_path / "a.tar")
    assert time.process_time() - start < 1 + len(data) / MB / 2
    found = [letter[2] for letter in letters(bench)]
    assert set(found) == (
        {"captions_too_many", reason} if case == "a million captions" else {reason} - {None}
    )
    assert "squares/z" in {row["key"] for row in rows(bench)}
    check_counts(bench)


@pytest.mark.parametrize(
    "case", ["exif", "profiles", "texts", "packed texts", "metadata of a webp", "frames"]
)
def test_what_says_nothing_of_the_pixels_costs_one_copy_at_most(case):
    """An archive is as long as its image, nearly."""
    with tarfile.open(fileobj=io.BytesIO(CASES[case][0])) as archive:
        data = archive.extractfile(archive.next()).read()
    tracemalloc.start()
    images.decode(data, 10**6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * MB


def test_an_image_is_the_same_without_what_says_nothing_of_it():
    plain = {"jpg": JPEG, "png": PNG, "webp": animated_webp(16, LOSSLESS, 2)}
    stuffed = {
        "jpg": stuffed_jpeg(JPEG, segment(0xEA, bytes(60_000)) * 2),
        "png": chunks(chunk(b"tEXt", b"k\0" + bytes(100_000))),
        "webp": animated_webp(16, LOSSLESS, 10_000),
    }
    for name, data in plain.items():
        assert (images.decode(stuffed[name], 10**6) == images.decode(data, 10**6)).all()


def test_a_jpeg_of_many_scans_is_fine_up_to_the_cap():
    assert images.inspect(scanned_jpeg(PROGRESSIVE, 80), 10**6).width == 32
