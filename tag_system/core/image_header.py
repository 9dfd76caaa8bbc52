"""What is known of an image's file before a decoder is asked."""

from dataclasses import dataclass

BYTES_A_PIXEL = {
    "JPEG": 12,
    "PNG": 8,
    "WEBP": 12,
    "GIF": 12,
    "BMP": 8,
    "TIFF": 16,
    "AVIF": 24,
    "HEIF": 24,
    "JXL": 32,
}
"""The most memory of a pixel of each format until it stands in upright RGB, see `ImageHeader.memory`."""

RESULT = 4
"""Bytes of a pixel of upright RGB in Pillow; three as an array."""

MAX_PIECES = 10_000
"""Pieces that the bytes of a picture may be scattered over, with others between them."""

SPARE = 64 << 10
"""So many bytes that say nothing of the pixels may stay where they are."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of itself, and `data`, the file or what a decoder needs of it.

    `format` is a key of `BYTES_A_PIXEL`, the name of a format that is not decoded, or "".

    `memory` is an upper bound of the bytes that are taken at any time until the picture stands in upright
    RGB: of the decoder, of the picture as it is stored, of the result, and of a `data` that is a copy. A size
    of 0 by 0 was not found, and it is for the decoder to say what is wrong.
    """

    data: bytes
    width: int = 0
    height: int = 0
    memory: int = 0
    format: str = ""
