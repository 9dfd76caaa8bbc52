"""Images of every kind that a decoder has to bring to the same RGB."""

import io
import struct
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image

from hostile import chunk, png

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8))


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format_, **options)
    return sink.getvalue()


def grey_rows(value, depth):
    row = b"\0" + struct.pack(">H" if depth == 16 else "B", value) * 8
    return row * 8


ODD_IMAGES = {
    "jpeg": saved(NOISE, "JPEG"),
    "progressive": saved(NOISE, "JPEG", progressive=True),
    "jpeg cmyk": saved(NOISE.convert("CMYK"), "JPEG"),
    "jpeg grey": saved(NOISE.convert("L"), "JPEG"),
    "jpeg of 5 x 3": saved(NOISE.crop((0, 0, 5, 3)), "JPEG"),
    "jpeg of 1 x 1": saved(NOISE.crop((0, 0, 1, 1)), "JPEG"),
    "jpeg followed by pictures": saved(NOISE, "MPO", save_all=True, append_images=[NOISE]),
    "png": saved(NOISE, "PNG"),
    "png palette": saved(NOISE.convert("P"), "PNG", transparency=3),
    "png alpha": saved(NOISE.convert("RGBA"), "PNG"),
    "png grey alpha": saved(NOISE.convert("LA"), "PNG"),
    "png of bits": saved(NOISE.convert("1"), "PNG"),
    "png of 16 bits": png(8, 8, depth=16, colour=0, rows=grey_rows(9, 16)),
    "png with a transparent grey": png(8, 8, colour=0, rows=grey_rows(9, 8), extra=chunk(b"tRNS", b"\0\x09")),
    "animated png": saved(NOISE, "PNG", save_all=True, append_images=[NOISE.rotate(90)]),
    "webp": saved(NOISE, "WEBP"),
    "webp lossless": saved(NOISE.convert("RGBA"), "WEBP", lossless=True),
    "animated webp": saved(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)]),
    "gif": saved(NOISE, "GIF"),
    "animated gif": saved(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)], transparency=3),
    "bmp": saved(NOISE, "BMP"),
    "bmp of bits": saved(NOISE.convert("1"), "BMP"),
    "tiff": saved(NOISE, "TIFF"),
    "tiff lzw": saved(NOISE.convert("RGBA"), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": saved(NOISE, "TIFF", compression="jpeg"),
    "tiff of 16 bits": saved(Image.fromarray(np.full((9, 8), 300, np.uint16)), "TIFF"),
    "two tiffs": saved(NOISE, "TIFF", save_all=True, append_images=[NOISE.rotate(90)]),
    "avif": saved(NOISE, "AVIF"),
    "avif alpha": saved(NOISE.convert("RGBA"), "AVIF"),
}

PACKAGED_IMAGES: dict[str, bytes] = {}
"""Images whose decoders are of the extra `images`, if that is installed."""

with suppress(ImportError):
    import pillow_heif
    import pillow_jxl  # noqa: F401  # registers itself with Pillow

    pillow_heif.register_heif_opener()
    PACKAGED_IMAGES |= {
        "heic": saved(NOISE, "HEIF"),
        "heic alpha": saved(NOISE.convert("RGBA"), "HEIF"),
        "jpeg xl": saved(NOISE, "JXL"),
        "jpeg xl in boxes": saved(NOISE, "JXL", use_container=True),
        "jpeg xl grey": saved(NOISE.convert("LA"), "JXL", lossless=True),
    }
    ODD_IMAGES |= PACKAGED_IMAGES
