"""The decoders of images, by format. Every one is a way in for hostile bytes: no other is ever asked.

Not by Pillow's `open`, which refuses images over a limit of its own, a global of the module: a larger cap
would not hold without lifting it for everybody in the process.
"""

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from PIL import Image as pillow
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tagmill.tag_system.core.errors import DataError, Reason

_ORIENTATION = 274


class _Jpeg(JpegImageFile):
    """A JPEG, or the first picture of an MPO."""

    def _read_dpi_from_exif(self) -> None:
        """Leave out what Pillow does on opening: it copies every value of the EXIF to find a resolution."""


class _Webp(WebPImageFile):
    """A WebP, or the first picture of an animation."""

    def _get_next(self) -> tuple[bytes, int, int]:
        """Give up the decoder with the first picture: it holds two more."""
        found = super()._get_next()
        self._decoder = None
        return found


class _Tiff(TiffImageFile):
    """The first picture of a TIFF, as stored: its orientation is noted as that of any other format."""

    def _setup(self) -> None:
        orientation = self.tag_v2.get(_ORIENTATION, 1)
        if isinstance(orientation, int) and 1 <= orientation <= 8:
            exif = struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
            self.info["exif"] = exif
        self.tag_v2.pop(_ORIENTATION, None)
        super()._setup()

    def load_end(self) -> None:
        """Leave out what Pillow does after loading: it turns the picture."""


def _heif(data: bytes) -> pillow.Image:
    """Open an HEIC; its decoder turns it upright by itself."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise _lacking("HEIC") from error
    image: pillow.Image = HeifImageFile(io.BytesIO(data), "")
    return image


def _jxl(data: bytes) -> pillow.Image:
    """Decode a JPEG XL; its decoder turns it upright by itself. One that was a JPEG becomes that again."""
    try:
        import pillow_jxl
    except ImportError as error:
        raise _lacking("JPEG XL") from error
    try:
        was_jpeg, info, raw, *_ = pillow_jxl.Decoder(num_threads=0)(data)
    except RuntimeError as error:
        raise OSError("a JPEG XL that is cut or damaged") from error
    if was_jpeg:
        image: pillow.Image = _Jpeg(io.BytesIO(raw), "")
    elif info.mode in ("L", "LA", "RGB", "RGBA", "I;16"):
        image = pillow.frombytes(info.mode, (info.width, info.height), raw)
    else:
        raise DataError(Reason.IMAGE_FORMAT, f"a JPEG XL of {info.mode}: save it with 8 bits")
    image.format = "JXL"
    return image


def _lacking(name: str) -> DataError:
    return DataError(Reason.IMAGE_FORMAT, f"{name} needs a decoder: pip install 'tagmill[images]'")


def _by(opener: Any) -> Callable[[bytes], pillow.Image]:
    return lambda data: opener(io.BytesIO(data), "")


_OPENERS: dict[str, Callable[[bytes], pillow.Image]] = {
    "JPEG": _by(_Jpeg),
    "PNG": _by(PngImageFile),
    "WEBP": _by(_Webp),
    "GIF": _by(GifImageFile),
    "BMP": _by(BmpImageFile),
    "TIFF": _by(_Tiff),
    "AVIF": _by(AvifImageFile),
    "HEIF": _heif,
    "JXL": _jxl,
}

FORMATS = tuple(_OPENERS)
"""Formats that are decoded; HEIF and JXL need packages of the extra `images`."""


def open_as(format_: str, data: bytes) -> pillow.Image | None:
    """Open an image as a format; None if its header cannot be read.

    Raises OSError, ValueError, DataError for a format whose decoder is not installed.
    """
    with suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Pillow passes over them
        return _OPENERS[format_](data)
    return None
