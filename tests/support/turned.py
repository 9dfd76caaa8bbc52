"""Pictures as cameras save them that were held in any of eight ways, told by EXIF."""

import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from sources import square_image

SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
"""Where the first stored row and the first stored column lie in the upright picture, as EXIF defines it."""

ORIENTATIONS = tuple(SIDES)

NAMES = ["red", "blue", "green"]


def picture(size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A picture that looks different in each of the eight ways."""
    return square_image(NAMES, 5, size)


def turned(image: Image.Image, orientation: int, format_: str = "PNG", **options: Any) -> bytes:
    """Save a picture so that it is upright again once its orientation is applied."""
    rows, columns = SIDES[orientation]
    pixels = np.asarray(image)
    if rows in ("left", "right"):
        pixels = pixels.swapaxes(0, 1)
    stored = pixels[:: 1 if rows in ("top", "left") else -1, :: 1 if columns in ("top", "left") else -1]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return saved(Image.fromarray(np.ascontiguousarray(stored)), format_, exif=exif, **options)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    lossless = {"lossless": True} if format_ == "WEBP" else {"quality": 95} if format_ == "JPEG" else {}
    image.save(sink, format_, **(lossless | options))
    return sink.getvalue()
