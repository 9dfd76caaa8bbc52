"""Images that were stored on their side or mirrored: whoever decodes them sees them upright."""

import io
import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hostile import resized_jpeg
from ingested import rows
from sources import write_tar
from stage_runs import Bench
from tagmill.tag_system.core.errors import DataError
from tagmill.transforms import images
from turned import ORIENTATIONS, picture, saved, turned

CAP = 10**6
FORMATS = ("JPEG", "PNG", "WEBP", "MPO")
UPRIGHT = np.asarray(picture())


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_reader_sees_the_upright_picture(orientation, format_):
    more = {"save_all": True, "append_images": [picture((40, 40))]} if format_ == "MPO" else {}
    data = turned(picture(), orientation, format_, **more)
    info = images.inspect(data, CAP)
    assert (info.width, info.height, info.orientation) == (96, 80, orientation)
    pixels = images.decode(data, CAP)
    with Image.open(io.BytesIO(data)) as theirs:
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(theirs).convert("RGB")), pixels)
    off = np.abs(pixels.astype(int) - UPRIGHT)
    assert off.mean() < 6 if format_ in ("JPEG", "MPO") else not off.any()


def exif(value, kind=3, count=1, order="<", head=b""):
    """A block of EXIF with an orientation of any value, type and count, after some other entry."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    written = struct.pack(order + ("H2x" if kind == 3 else "I"), value)
    entries = struct.pack(order + "HHII", 0x0100, 4, 1, 7) + struct.pack(order + "HHI", 274, kind, count)
    return head + mark + struct.pack(order + "IH", 8, 2) + entries + written + bytes(4)


def orientation_of(block, format_="PNG"):
    data = saved(picture(), format_, exif=block)
    info = images.inspect(data, CAP)
    assert images.decode(data, CAP).shape[:2] == (info.height, info.width)
    return info.orientation


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("block", "orientation"),
    [
        (exif(6), 6),
        (exif(6, order=">"), 6),
        (exif(6, kind=4), 6),
        (exif(6, head=b"Exif\0\0"), 6),
        (exif(0), 1),
        (exif(9), 1),
        (exif(65535), 1),
        (exif(2**32 - 1, kind=4), 1),
        (exif(6, kind=2), 1),
        (exif(6, count=2), 1),
        (exif(6, count=2**32 - 1), 1),
        (exif(6)[:20], 1),
        (exif(6)[:30], 1),
        (b"II*\0\xff\xff\xff\xff", 1),
        (b"II*\0\x04\0\0\0", 1),
        (b"II*\0" + b"\0" * 4, 1),
        (b"MM*\0" + exif(6)[4:], 1),
        (b"Exif\0\0" * 9_000, 1),
        (b"\xff" * 60_000, 1),
        (b"x", 1),
    ],
    ids=[
        "little-endian", "big-endian", "long", "prefix", "0", "9", "65535", "2^32 - 1", "text", "two values",
        "too many values", "cut in an entry", "cut before the value", "far away", "in itself", "nowhere",
        "odd mark", "prefixes alone", "ones", "one byte",
    ],
)  # fmt: skip
def test_an_orientation_that_does_not_hold_is_none(block, orientation, format_):
    block = block if format_ != "JPEG" or block.startswith(b"Exif\0\0") else b"Exif\0\0" + block
    assert orientation_of(block, format_) == orientation


@given(st.binary(max_size=60), st.integers(0, 40))
def test_damaged_exif_costs_the_orientation_at_most(noise, place):
    whole = exif(6)
    assert orientation_of(whole[:place] + noise + whole[place + len(noise) :] or b"x") in ORIENTATIONS


def test_exif_behind_the_pixels_of_a_png_counts():
    data = turned(picture(), 6)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    assert images.inspect(moved, CAP).orientation == 6
    assert np.array_equal(images.decode(moved, CAP), UPRIGHT)


def test_exif_that_asks_for_memory_gets_none():
    entries = b"".join(struct.pack("<HHII", tag, 1, 60_000, 0) for tag in range(1000, 5000))
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 4000) + entries
    data = saved(picture(), "JPEG", exif=block.ljust(60_020, b"\0"))
    # Without the density of JFIF Pillow would look for one in the EXIF.
    start = data.index(b"JFIF") - 4
    data = data[:start] + data[start + 18 :]
    tracemalloc.start()
    images.inspect(data, CAP)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_the_cap_is_on_stored_and_upright_pixels_alike():
    wide = resized_jpeg(turned(picture(), 6, "JPEG"), 20_000, 20_000)
    with pytest.raises(DataError, match="image_too_large"):
        images.decode(wide, CAP)


MARK = np.array([90, 91, 92], np.uint8)


def marked(orientation, size, box):
    """An upright picture with one box drawn, stored in some orientation; and the box as stored."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = MARK
    data = turned(Image.fromarray(pixels), orientation)
    with Image.open(io.BytesIO(data)) as image:
        ys, xs = np.nonzero((np.asarray(image) == MARK).all(axis=2))
        return data, [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1], image.size


def ingested(folder, orientation, boxes, given_as, noted, size=(60, 40)):
    """Ingest one picture with a given box; returns its row and how many boxes were undecided."""
    box = [7, 3, 30, 21]
    data, stored, stored_size = marked(orientation, size, box)
    fields = {"labels": [{"name": "red", "box": box if given_as == "upright" else stored}, "blue"]}
    if noted:
        fields |= dict(zip(("width", "height"), size if noted == "upright" else stored_size, strict=True))
    contents = [("a.png", data), ("a.json", json.dumps(fields).encode())]
    bench = Bench(folder / "run")
    (part,) = bench.ingest(write_tar(folder / "a.tar", contents), boxes=boxes)
    (row,) = rows(bench)
    assert (row["width"], row["height"], row["orientation"]) == (*size, orientation)
    assert row["labels"][1]["box"] is None
    return row["labels"][0]["box"], box, part.header.notes["boxes_undecided"]


@pytest.mark.parametrize("given_as", ["stored", "upright"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_given_boxes_are_brought_upright_from_what_the_input_says_they_are(tmp_path, orientation, given_as):
    found, expected, undecided = ingested(tmp_path, orientation, given_as, given_as, None)
    assert (found, undecided) == (expected, 0)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("noted", ["stored", "upright", None])
def test_the_noted_size_tells_of_which_pixels_boxes_are(tmp_path, orientation, noted):
    on_its_side = orientation >= 5
    given_as = "upright" if noted == "upright" and on_its_side else "stored"
    found, expected, undecided = ingested(tmp_path, orientation, "auto", given_as, noted)
    assert found == expected
    assert undecided == (orientation != 1 and not (noted and on_its_side))


def test_the_size_of_a_square_tells_nothing(tmp_path):
    found, expected, undecided = ingested(tmp_path, 6, "auto", "stored", "upright", size=(40, 40))
    assert (found, undecided) == (expected, 1)


def test_boxes_keep_fractions_and_what_lies_outside(tmp_path):
    data, _, _ = marked(6, (60, 40), [0, 0, 1, 1])
    labels = [{"name": "red", "bbox": [1.25, -2, 2.5, 80]}]
    contents = [("a.png", data), ("a.json", json.dumps({"labels": labels}).encode())]
    bench = Bench(tmp_path / "run")
    bench.ingest(write_tar(tmp_path / "a.tar", contents))
    assert rows(bench)[0]["labels"][0]["box"] == [60 - 78, 1.25, 62, 3.75]
