"""Decodes the bytes of an image to upright pixels; the one decoder of the engine and the trainer.

The EXIF of JPEG, of PNG's chunk `eXIf` and of WebP says how a camera was held. Nothing but its orientation
is read: whole EXIF blocks come from anywhere and may be damaged, huge, or made to cost memory.
"""

import io
import struct
from contextlib import suppress

import numpy as np
from PIL import ExifTags
from PIL import Image as pillow
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tagmill.tag_system.core.errors import DataError, Reason

Box = tuple[float, float, float, float]

TURNS = {
    2: pillow.Transpose.FLIP_LEFT_RIGHT,
    3: pillow.Transpose.ROTATE_180,
    4: pillow.Transpose.FLIP_TOP_BOTTOM,
    5: pillow.Transpose.TRANSPOSE,
    6: pillow.Transpose.ROTATE_270,
    7: pillow.Transpose.TRANSVERSE,
    8: pillow.Transpose.ROTATE_90,
}
"""What brings a stored picture upright, by its EXIF orientation; 1 stands upright already."""

_PREFIX = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_INTEGERS = {3: "H", 4: "I"}
"""Types that an orientation is written in, as `struct` calls them: SHORT, and LONG against the rule."""


class _Jpeg(JpegImageFile):
    """A JPEG, or the first picture of an MPO."""

    def _read_dpi_from_exif(self) -> None:
        """Leave out what Pillow does on opening: it copies every value of the EXIF to find a resolution."""


_OPENERS = {"JPEG": _Jpeg, "PNG": PngImageFile, "WEBP": WebPImageFile}

FORMATS = tuple(_OPENERS)
"""Formats that are opened at all; every further decoder is a way in for hostile bytes."""


def identify(data: bytes) -> pillow.Image | None:
    """Find the format that can read the header; None if none can. Raises OSError, ValueError.

    Not by Pillow's `open`, which refuses images over a limit of its own, a global of the module: a larger cap
    would not hold without lifting it for everybody in the process.
    """
    for name, opener in _OPENERS.items():
        _, accepts = pillow.OPEN[name]
        if accepts is None or accepts(data[:16]) is True:
            with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Pillow passes over them
                return opener(io.BytesIO(data), "")
    return None


def open_image(data: bytes, max_pixels: int) -> pillow.Image:
    """Read an image's header: format and size are checked before a pixel is decoded.

    Raises DataError: unreadable, a format that is not allowed, or more than `max_pixels` pixels.
    """
    try:
        image = identify(data)
    except (OSError, ValueError) as error:
        raise DataError(Reason.IMAGE_UNREADABLE, str(error)) from error
    if image is None:
        reason = Reason.IMAGE_FORMAT if _is_other_format(data) else Reason.IMAGE_UNREADABLE
        raise DataError(reason, f"not a readable {'/'.join(FORMATS)}")
    width, height = image.size
    if width * height > max_pixels:
        detail = f"{width} x {height} pixels; the limit is {max_pixels} (max_pixels)"
        raise DataError(Reason.IMAGE_TOO_LARGE, detail)
    return image


def _is_other_format(data: bytes) -> bool:
    """Tell whether the bytes begin like a common image format that is not allowed."""
    return data.startswith((b"GIF8", b"BM", b"II*\0", b"MM\0*", b"%!PS")) or data[4:12] in (
        b"ftypavif",
        b"ftypheic",
        b"ftypmif1",
    )


def load(image: pillow.Image) -> None:
    """Decode the pixels of an opened image, to their end. Raises DataError: truncated, or unreadable."""
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        truncated = "truncated" in str(error) or isinstance(error, EOFError)
        reason = Reason.IMAGE_TRUNCATED if truncated else Reason.IMAGE_UNREADABLE
        raise DataError(reason, str(error)) from error


def decode(data: bytes, max_pixels: int) -> pillow.Image:
    """Decode an image to RGB, upright; transparency is laid on white. Raises DataError."""
    image = open_image(data, max_pixels)
    load(image)
    return rgb(image)


def rgb(image: pillow.Image) -> pillow.Image:
    """Give a loaded picture in RGB, upright; transparency is laid on white."""
    turn = TURNS.get(orientation(image))
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", layer.size, "white"), layer)
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def grey(image: pillow.Image) -> pillow.Image:
    """Give a loaded picture in grey, upright; transparency is laid on white. Cheaper than by `rgb`."""
    turn = TURNS.get(orientation(image))
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif image.has_transparency_data:
        layer = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        image = pillow.new("L", layer.size, "white")
        image.paste(layer.convert("L"), mask=layer.getchannel("A"))
    image = image.convert("L")
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: pillow.Image) -> pillow.Image:
    """Scale grey of 16 bits, which Pillow would clip."""
    return pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def orientation(image: pillow.Image) -> int:
    """Read the EXIF orientation of a loaded picture: 1 to 8, 1 where there is none that holds.

    A PNG may have its EXIF behind the pixels, so it must have been loaded.
    """
    exif = image.info.get("exif")
    if not isinstance(exif, bytes):
        return 1
    start = 0
    for _ in range(2):  # one is of JPEG; some writers put it into a PNG, before which Pillow puts its own
        start += len(_PREFIX) * exif.startswith(_PREFIX, start)
    order = _BYTE_ORDERS.get(exif[start : start + 4])
    try:
        found = _orientation(exif, start, order) if order else 1
    except struct.error:  # cut off, or pointing out of itself
        return 1
    return found if 1 <= found <= 8 else 1


def _orientation(exif: bytes, start: int, order: str) -> int:
    """Look for the orientation in the first directory of a TIFF block. Raises struct.error."""
    (directory,) = struct.unpack_from(order + "I", exif, start + 4)
    place = start + directory
    (count,) = struct.unpack_from(order + "H", exif, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, entry)
        if tag == ExifTags.Base.Orientation:
            if kind not in _INTEGERS or values != 1:
                return 1
            found: int = struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)[0]
            return found
    return 1


def turned_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Give the upright (width, height) of a stored size, or the other way round."""
    return (height, width) if orientation >= 5 else (width, height)


def turned_box(box: Box, orientation: int, width: int, height: int) -> Box:
    """Bring a box of stored pixels upright: x1, y1, x2, y2 are edges, `width` and `height` are as stored."""
    x1, y1, x2, y2 = box
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    return (y1, x1, y2, x2) if orientation >= 5 else (x1, y1, x2, y2)
