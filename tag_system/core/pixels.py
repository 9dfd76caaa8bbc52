"""Decodes the bytes of an image to upright pixels; the one decoder of the engine and the trainer.

The EXIF of JPEG, of PNG's chunk `eXIf` and of WebP says how a camera was held. Nothing but its orientation
is read: whole EXIF blocks come from anywhere and may be damaged, huge, or made to cost memory.
"""

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as pillow

from tagmill.tag_system.core import containers, decoders
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.tag_system.core.image_header import BYTES_A_PIXEL, ImageHeader

MAX_BYTES = 768 << 20
"""Memory that one image may take while it is decoded, unless somebody says otherwise (`max_image_bytes`)."""

BAND_PIXELS = 1 << 18
"""A picture is converted in bands of so many pixels, or a row: its copies take no more than that."""

_TOLD_BY_DECODERS = ("JPEG", "PNG", "WEBP")
"""Formats whose decoder may say what is wrong with a header; those of others may decode at once."""

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


def open_image(data: bytes, max_pixels: int, max_bytes: int = MAX_BYTES) -> pillow.Image:
    """Read an image's header: format, size and memory are checked before a pixel is decoded.

    Raises DataError: unreadable, a format that is not allowed, more than `max_pixels` pixels, or more than
    `max_bytes` of memory until it stands in upright RGB.
    """
    return open_header(read_header(data, max_pixels, max_bytes), max_pixels, max_bytes)


def read_header(data: bytes, max_pixels: int, max_bytes: int) -> ImageHeader:
    """Read what an image's container says, before a decoder is opened: that of WebP takes its memory at once.

    Raises DataError as `open_image`.
    """
    header = containers.read(data)
    _check_size((header.width, header.height), header.memory, max_pixels, max_bytes)
    return header


def open_header(header: ImageHeader, max_pixels: int, max_bytes: int) -> pillow.Image:
    """Open the decoder of an image whose container was read. Raises DataError as `open_image`."""
    if header.format and header.format not in decoders.FORMATS:
        detail = f"{header.format} is not decoded here: save it as JPEG, PNG or WebP"
        raise DataError(Reason.IMAGE_FORMAT, detail)
    is_known = header.format and (header.format in _TOLD_BY_DECODERS or header.width * header.height)
    try:
        image = decoders.open_as(header.format, header.data) if is_known else None
    except pillow.DecompressionBombError as error:
        raise DataError(Reason.IMAGE_TOO_LARGE, str(error)) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(Reason.IMAGE_UNREADABLE, str(error)) from error
    except MemoryError as error:
        raise out_of_memory() from error
    if image is None:
        raise DataError(Reason.IMAGE_UNREADABLE, f"not a readable {header.format or 'image'}")
    if image.size != (header.width, header.height):  # damaged, or made to be read in two ways
        most = BYTES_A_PIXEL[header.format] * image.width * image.height
        _check_size(image.size, most, max_pixels, max_bytes)
    return image


def _check_size(size: tuple[int, int], memory: int, max_pixels: int, max_bytes: int) -> None:
    width, height = size
    if width * height > max_pixels:
        detail = f"{width} x {height} pixels; the limit is {max_pixels} (max_pixels)"
        raise DataError(Reason.IMAGE_TOO_LARGE, detail)
    if memory > max_bytes:
        detail = f"{width} x {height} pixels take {memory} bytes to decode; the limit is {max_bytes}"
        raise DataError(Reason.IMAGE_TOO_LARGE, f"{detail} (max_image_bytes)")


def out_of_memory() -> DataError:
    """Say that there was not the memory for an image, though its header keeps to the limits."""
    detail = "there is not enough memory to decode it; lower max_image_bytes, or run fewer workers"
    return DataError(Reason.IMAGE_TOO_LARGE, detail)


def load(image: pillow.Image) -> None:
    """Decode the pixels of an opened image, to their end.

    Raises DataError: truncated, unreadable, or more than there is memory for.
    """
    try:
        image.load()
    except MemoryError as error:
        raise out_of_memory() from error
    except pillow.DecompressionBombError as error:
        raise DataError(Reason.IMAGE_TOO_LARGE, str(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
        if "out of memory" in str(error):
            raise out_of_memory() from error
        truncated = "truncated" in str(error) or isinstance(error, EOFError)
        reason = Reason.IMAGE_TRUNCATED if truncated else Reason.IMAGE_UNREADABLE
        raise DataError(reason, str(error)) from error
    image.fp = None  # type: ignore[attr-defined]  # of a WebP, it holds the picture once more


def decode(data: bytes, max_pixels: int, max_bytes: int = MAX_BYTES) -> pillow.Image:
    """Decode an image to RGB, upright; transparency is laid on white. Raises DataError as `open_image`."""
    image = open_image(data, max_pixels, max_bytes)
    load(image)
    try:
        return rgb(image)
    except MemoryError as error:
        raise out_of_memory() from error


def decode_array(
    data: bytes, max_pixels: int, max_bytes: int = MAX_BYTES, least: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Decode an image as `decode`, to an array (height, width, 3). Raises DataError as `open_image`.

    With `least`, an upright width and height, a JPEG is decoded at the smallest of a half, a quarter or an
    eighth of its size in which neither side is shorter: its DCT is scaled, in a fraction of the time.
    """
    image = open_image(data, max_pixels, max_bytes)
    if least is not None and image.format == "JPEG":
        image.draft(None, turned_size(*least, orientation(image)))
    load(image)
    try:
        return _array(image)
    except MemoryError as error:
        raise out_of_memory() from error


def rgb(image: pillow.Image) -> pillow.Image:
    """Give a loaded picture in RGB, upright; transparency is laid on white."""
    if image.mode == "RGB" and not _is_transparent(image):
        turn = TURNS.get(orientation(image))
        return image if turn is None else image.transpose(turn)
    upright = pillow.new("RGB", turned_size(*image.size, orientation(image)))
    for (left, top, _, _), band in _bands(image):
        upright.paste(_rgb(band), (left, top))
    return upright


def _array(image: pillow.Image) -> NDArray[np.uint8]:
    if image.width * image.height <= BAND_PIXELS:
        return np.array(rgb(image))
    width, height = turned_size(*image.size, orientation(image))
    pixels = np.empty((height, width, 3), np.uint8)
    for (left, top, right, bottom), band in _bands(image):
        pixels[top:bottom, left:right] = np.asarray(_rgb(band))
    return pixels


def _rgb(image: pillow.Image) -> pillow.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif _is_transparent(image):
        layer = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def grey(image: pillow.Image) -> pillow.Image:
    """Give a loaded picture in grey, upright; transparency is laid on white. Cheaper than by `rgb`."""
    if image.mode == "L" and not _is_transparent(image):
        turn = TURNS.get(orientation(image))
        return image if turn is None else image.transpose(turn)
    upright = pillow.new("L", turned_size(*image.size, orientation(image)))
    for (left, top, _, _), band in _bands(image):
        upright.paste(_grey(band), (left, top))
    return upright


def _grey(image: pillow.Image) -> pillow.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    elif _is_transparent(image):
        layer = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        image = pillow.new("L", layer.size, "white")
        image.paste(layer.convert("L"), mask=layer.getchannel("A"))
    return image if image.mode == "L" else image.convert("L")


def _bands(image: pillow.Image) -> Iterator[tuple[tuple[int, int, int, int], pillow.Image]]:
    """Cut a loaded picture into bands, each turned upright, with its box (x1, y1, x2, y2) there."""
    width, height = image.size
    found = orientation(image)
    turn = TURNS.get(found)
    rows = max(1, BAND_PIXELS // max(1, width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image if rows >= height else image.crop((0, top, width, bottom))
        x1, y1, x2, y2 = map(int, turned_box((0, top, width, bottom), found, width, height))
        yield (x1, y1, x2, y2), band if turn is None else band.transpose(turn)


def _is_transparent(image: pillow.Image) -> bool:
    """Tell whether a loaded picture has transparency. Raises DataError if its palette is missing."""
    if image.mode == "P" and image.palette is None:
        raise DataError(Reason.IMAGE_UNREADABLE, "its pixels are numbers of a palette that it does not have")
    return image.has_transparency_data


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
