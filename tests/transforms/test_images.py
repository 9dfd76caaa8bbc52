import hashlib
import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hostile import HUGE, avif_in_disguise, chunk, png, resized_jpeg
from odd_images import NOISE, ODD_IMAGES, grey_rows, saved
from tagmill.tag_system.core.decoders import FORMATS
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.core.pixels import open_image, read_header
from tagmill.transforms import images

CAP = 10**6


def reason(call, *arguments):
    with pytest.raises(DataError) as caught:
        call(*arguments)
    return caught.value.reason


named = pytest.mark.parametrize("data", ODD_IMAGES.values(), ids=ODD_IMAGES)


@named
def test_what_ingest_accepts_can_be_decoded_and_has_the_size_it_says(data):
    info = images.inspect(data, CAP)
    pixels = images.decode(data, CAP)
    assert pixels.shape == (info.height, info.width, 3)
    assert pixels.dtype == np.uint8
    assert info.format in FORMATS
    assert info.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (saved(Image.new("RGB", (9, 9), (10, 200, 30)), "PNG"), (10, 200, 30)),
        (saved(Image.new("L", (9, 9), 77), "PNG"), (77, 77, 77)),
        (saved(Image.new("RGBA", (9, 9), (255, 0, 0, 0)), "PNG"), (255, 255, 255)),
        (saved(Image.new("RGBA", (9, 9), (0, 0, 0, 51)), "PNG"), (204, 204, 204)),
        (saved(Image.new("LA", (9, 9), (50, 0)), "PNG"), (255, 255, 255)),
        (saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        (png(8, 8, depth=16, colour=0, rows=grey_rows(0x8000, 16)), (128, 128, 128)),
        (
            png(8, 8, depth=16, colour=0, rows=grey_rows(40, 16), extra=chunk(b"tRNS", b"\0\1")),
            (0, 0, 0),
        ),
        (
            png(8, 8, depth=8, colour=0, rows=grey_rows(9, 8), extra=chunk(b"tRNS", b"\0\x09")),
            (255, 255, 255),
        ),
    ],
    ids=[
        "rgb",
        "grey",
        "transparent is white",
        "half transparent black",
        "grey and transparent",
        "cmyk",
        "16 bits are scaled and not clipped",
        "16 bits and a transparent grey",
        "a transparent grey",
    ],
)
def test_pixels_are_rgb(data, colour):
    pixels = images.decode(data, CAP)
    assert np.abs(pixels[4, 4].astype(int) - colour).max() <= 2


def test_a_transparent_palette_colour_is_white():
    image = Image.new("P", (9, 9), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert images.decode(saved(image, "PNG"), CAP)[0, 0].tolist() == [255, 0, 0]
    assert images.decode(saved(image, "PNG", transparency=0), CAP)[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    "data",
    [
        png(60_000, 60_000),
        resized_jpeg(ODD_IMAGES["jpeg"], 60_000, 60_000),
        png(15_000, 10_000),
        png(1_001, 1_000),
    ],
    ids=["png 60,000 x 60,000", "jpeg 60,000 x 60,000", "png 15,000 x 10,000", "one row over the cap"],
)
@pytest.mark.parametrize("call", [images.inspect, images.decode], ids=["inspect", "decode"])
def test_an_image_over_the_cap_is_refused_by_its_header(data, call):
    assert reason(call, data, CAP) is Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "data",
    [png(20_000, 20_000), resized_jpeg(ODD_IMAGES["jpeg"], 20_000, 20_000)],
    ids=["png", "jpeg"],
)
@pytest.mark.filterwarnings("error")
def test_the_cap_alone_decides_and_not_the_limit_that_pillow_has(data):
    before = Image.MAX_IMAGE_PIXELS
    assert open_image(data, 400_000_000, 1 << 32).size == (20_000, 20_000)
    with pytest.raises(DataError, match=r"20000 x 20000 pixels; the limit is 399999999 \(max_pixels\)"):
        open_image(data, 399_999_999)
    assert before == Image.MAX_IMAGE_PIXELS


def test_an_image_at_the_cap_is_accepted():
    assert images.inspect(saved(NOISE, "PNG"), 24 * 32).width == 32
    assert reason(images.inspect, saved(NOISE, "PNG"), 24 * 32 - 1) is Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved(NOISE, "JPEG2000"), "JPEG 2000 is not decoded here: save it as JPEG, PNG or WebP"),
        (saved(NOISE, "ICO"), "ICO is not decoded here"),
        (saved(NOISE, "AVIF", save_all=True, append_images=[NOISE]), "a film of AVIF or HEIC pictures"),
        (
            saved(NOISE.convert("F"), "TIFF"),
            "a TIFF of 32-bit numbers with a sign or a point: save it as PNG",
        ),
        (saved(NOISE.convert("1"), "TIFF", compression="group4"), "a TIFF compressed by method 4"),
        (b"II+\0" + bytes(99), "BigTIFF"),
        (b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 8, 8, 1, 8, 1) + bytes(99), "a compressed BMP"),
    ],
    ids=["jpeg 2000", "ico", "film", "tiff of floats", "fax", "bigtiff", "compressed bmp"],
)
def test_another_format_is_refused_by_its_name_with_the_remedy(data, words):
    with pytest.raises(DataError, match=words) as caught:
        images.inspect(data, CAP)
    assert caught.value.reason is Reason.IMAGE_FORMAT


@pytest.mark.parametrize(
    ("name", "package", "words"),
    [("heic", "pillow_heif", "HEIC"), ("jpeg xl", "pillow_jxl", "JPEG XL")],
)
def test_a_decoder_that_is_not_installed_is_named(name, package, words, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"{words} needs a decoder: pip install 'tagmill\[images\]'"):
        images.inspect(ODD_IMAGES[name], CAP)


@pytest.mark.parametrize("data", HUGE.values(), ids=HUGE)
def test_a_huge_claim_of_any_format_is_refused_by_its_header(data):
    """Nothing is decoded: the rest of the file is missing."""
    assert reason(images.inspect, data, CAP) is Reason.IMAGE_TOO_LARGE


def test_an_avif_is_as_large_as_its_code_says_whatever_the_container_says():
    data = avif_in_disguise(saved(Image.new("RGB", (1_040, 1_040)), "AVIF", speed=10), 1_040)
    with pytest.raises(DataError, match="1040 x 1040 pixels; the limit is 1000000"):
        images.inspect(data, CAP)


@pytest.mark.parametrize("name", [name for name in ODD_IMAGES if "jpeg" not in name])
def test_an_image_takes_no_more_than_its_header_says(name):
    """Its own need is refused by a byte less."""
    need = read_header(ODD_IMAGES[name], CAP, 1 << 40).memory
    assert images.inspect(ODD_IMAGES[name], CAP, need).format in FORMATS
    assert reason(images.inspect, ODD_IMAGES[name], CAP, need - 1) is Reason.IMAGE_TOO_LARGE


def test_a_tiff_is_turned_upright_as_any_other():
    turned = Image.Exif()
    turned[0x0112] = 6
    data = saved(NOISE, "TIFF", exif=turned)
    assert images.inspect(data, CAP).orientation == 6
    assert np.array_equal(images.decode(data, CAP), np.array(NOISE.transpose(Image.Transpose.ROTATE_270)))


def test_a_jpeg_xl_made_of_a_jpeg_gives_its_pixels(tmp_path):
    pytest.importorskip("pillow_jxl")
    (tmp_path / "a.jpg").write_bytes(ODD_IMAGES["jpeg"])
    with Image.open(tmp_path / "a.jpg") as image:
        data = saved(image, "JXL", lossless_jpeg=True)
    assert np.array_equal(images.decode(data, CAP), images.decode(ODD_IMAGES["jpeg"], CAP))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"<html>404</html>",
        bytes(5_000),
        png(0, 0),
        ODD_IMAGES["png"][:20],
        b"RIFF\0\0\0\0WEBP",
    ],
    ids=["empty", "two bytes", "a web page", "zeros", "0 x 0", "half a header", "an empty webp"],
)
def test_what_is_no_image_is_unreadable(data):
    assert reason(images.inspect, data, CAP) is Reason.IMAGE_UNREADABLE


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "webp"])
@pytest.mark.parametrize("share", [0.5, 0.9], ids=str)
def test_a_cut_image_is_refused(name, share):
    data = ODD_IMAGES[name]
    found = reason(images.inspect, data[: int(len(data) * share)], CAP)
    assert found in (Reason.IMAGE_TRUNCATED, Reason.IMAGE_UNREADABLE)
    if name == "jpeg" and share == 0.9:  # the first half of so small a file is header
        assert found is Reason.IMAGE_TRUNCATED


def test_the_same_bad_bytes_have_the_same_detail():
    def details():
        for data in (b"no image", ODD_IMAGES["jpeg"][:400], saved(NOISE, "ICO")):
            try:
                images.inspect(data, CAP)
            except DataError as error:
                yield error.detail

    kept_alive = bytearray(1000)
    first = list(details())
    assert (len(first), first) == (3, list(details()))
    assert len(kept_alive) == 1000


@given(st.sampled_from(sorted(ODD_IMAGES)), st.data())
def test_damaged_bytes_are_bad_data_and_never_a_crash(name, data):
    damaged = bytearray(ODD_IMAGES[name])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = bytes(
        damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    )
    for call in (images.inspect, images.decode):
        try:
            call(damaged, CAP)
        except DataError as error:
            assert error.reason in (  # noqa: PT017  most damage raises, some is harmless
                Reason.IMAGE_UNREADABLE,
                Reason.IMAGE_TRUNCATED,
                Reason.IMAGE_TOO_LARGE,
                Reason.IMAGE_FORMAT,
            )


kinds = pytest.mark.parametrize("kind", ["file", "range"])


@kinds
def test_references_give_the_bytes_in_any_order(store, kind):
    references = [example["image"] for example in store.examples(kind)]
    assert list(images.read_references(references, store.root)) == store.data
    assert list(images.read_references(references[::-1], store.root)) == store.data[::-1]


def test_references_change_between_files_and_ranges(store):
    mixed = [
        pair["image"]
        for pairs in zip(store.examples("file"), store.examples("range"), strict=True)
        for pair in pairs
    ]
    expected = [data for data in store.data for _ in range(2)]
    assert list(images.read_references(mixed, store.root)) == expected
