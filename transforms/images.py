"""Image bytes: references to them, what their headers say, and their pixels."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pyarrow as pa

from tagmill.models.base import Image
from tagmill.tag_system.core import files, pixels
from tagmill.tag_system.core.errors import DamageError, InputChangedError
from tagmill.transforms import image_copies, parquet_images
from tagmill.transforms.phash import phash

IMAGE_REFERENCE = pa.struct(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)
"""Where an image's bytes are. `kind` is `file` or `range`, with `uri` relative to the input's root, and
`offset` and `size` in bytes; or one of `parquet_images` or `image_copies`."""

AHEAD_IMAGES = 32
"""How many images may be read but not yet taken, where a batch is not more."""

PIXEL_BYTES = 3
"""Of a decoded pixel."""

HASHED_SIDE = 64
"""JPEGs are decoded at an eighth of their size for a hash, or larger, so that no side has fewer pixels."""


def share_of_rest(max_image_bytes: int) -> int:
    """Give the bytes of what else a worker holds of images, beside those that are read and decoded.

    These are a batch for a model, or the bytes of images that wait. Altogether a worker's images take no more
    than four thirds of `max_image_bytes`.
    """
    return max_image_bytes // 3


REMEDY = (
    "put the old one back, or remove its part (`tagmill inspect` names it) from the run's folder `ingest` "
    "and run again"
)
"""What to do about an image that changed where its source did not, such as beside a file of JSON lines."""


@dataclass(frozen=True)
class ImageInfo:
    """What one look at an image's bytes says.

    `width` and `height` are of the upright image; `orientation` is EXIF's, 1 to 8, 1 for an image that is
    stored upright; `phash` is of the upright image, see `phash`.
    """

    width: int
    height: int
    orientation: int
    format: str
    sha256: str
    phash: int


class Room:
    """Memory that threads share: each takes what it needs, or waits until there is as much.

    One that needs more than there is gets all of it.
    """

    def __init__(self, size: int) -> None:
        self._size, self._free = size, size
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Hold `size` bytes."""
        size = min(size, self._size)
        with self._changed:
            self._changed.wait_for(lambda: size <= self._free)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


def inspect(
    data: bytes, max_pixels: int, max_bytes: int = pixels.MAX_BYTES, room: Room | None = None
) -> ImageInfo:
    """Check that an image can be decoded to its end and tell what there is to tell of it.

    JPEGs are decoded in grey at an eighth of their size or little more: all of the compressed data is still
    read, at a fraction of the time. The limits are those of `decode`: what passes here does so later. `room`
    is what images that are decoded at the same time share. Raises DataError.
    """
    header = pixels.read_header(data, max_pixels, max_bytes)
    with room.taken(header.memory) if room else nullcontext():
        image = pixels.open_header(header, max_pixels, max_bytes)
        size = image.size
        if header.format == "JPEG":
            image.draft("L", (HASHED_SIDE, HASHED_SIDE))
        pixels.load(image)
        orientation = pixels.orientation(image)
        try:
            hashed = phash(pixels.grey(image))
        except MemoryError as error:
            raise pixels.out_of_memory() from error
    width, height = pixels.turned_size(*size, orientation)
    digest = hashlib.sha256(data).hexdigest()
    return ImageInfo(width, height, orientation, header.format, digest, hashed)


def decode(
    data: bytes,
    max_pixels: int,
    max_bytes: int = pixels.MAX_BYTES,
    least: tuple[int, int] | None = None,
) -> Image:
    """Decode an image to upright RGB pixels, uint8 (height, width, 3); transparency is laid on white.

    With `least`, a JPEG may be decoded at a fraction of its size, see `pixels.decode_array`. Raises
    DataError.
    """
    return pixels.decode_array(data, max_pixels, max_bytes, least)


def read_references(references: Iterable[dict[str, Any]], root: str) -> Iterator[bytes]:
    """Read the bytes behind image references, in order; a file is opened once for its run of them.

    Raises InputChangedError if a file is missing or no longer holds what ingest saw there, DamageError if
    a copy in the run is.
    """
    with ExitStack() as stack:
        opened: tuple[tuple[str, str], Callable[[dict[str, Any]], bytes]] | None = None
        for reference in references:
            is_copy = reference["kind"] == image_copies.KIND
            uri = reference["uri"] if is_copy or not root else files.join(root, reference["uri"])
            try:
                if opened is None or opened[0] != (reference["kind"], uri):
                    stack.close()
                    stream = stack.enter_context(files.open_read(uri))
                    opened = (reference["kind"], uri), _reader(reference["kind"], stream)
                data = opened[1](reference)
            except FileNotFoundError as error:
                if is_copy:
                    raise DamageError(f"{uri} is missing; run again") from error
                raise InputChangedError(f"{uri} was removed after it was ingested; put it back") from error
            except files.SpecialFileError as error:
                raise InputChangedError(f"{uri} is not a regular file any more; {REMEDY}") from error
            if len(data) != reference["size"]:
                if is_copy:
                    raise DamageError(f"{uri} is damaged; remove it and run again")
                raise InputChangedError(f"{uri} is shorter than when it was ingested; {REMEDY}")
            yield data


def _reader(kind: str, stream: IO[bytes]) -> Callable[[dict[str, Any]], bytes]:
    """Give what reads the references of a kind out of a file. Raises InputChangedError."""
    if not kind.startswith(parquet_images.KIND):
        return partial(_read_range, stream)
    with _unchanged():
        group_reader = parquet_images.GroupReader(stream, kind.removeprefix(parquet_images.KIND))
    return partial(_read_cell, group_reader)


def _read_range(stream: IO[bytes], reference: dict[str, Any]) -> bytes:
    stream.seek(reference["offset"])
    return stream.read(reference["size"])


def _read_cell(reader: parquet_images.GroupReader, reference: dict[str, Any]) -> bytes:
    with _unchanged():
        return reader.read(reference)


@contextmanager
def _unchanged() -> Iterator[None]:
    """Raise InputChangedError for a Parquet file that is not what it was."""
    try:
        yield
    except (*parquet_images.DAMAGE, KeyError, IndexError) as error:
        if getattr(error, "errno", None):  # nothing is known of the bytes
            raise
        raise InputChangedError(f"a Parquet file is another than was ingested ({error}); {REMEDY}") from error


def check_unchanged(data: bytes, example: dict[str, Any]) -> None:
    """Compare an image's bytes with those that ingest saw. Raises InputChangedError."""
    if hashlib.sha256(data).hexdigest() != example["sha256"]:
        raise InputChangedError(f"the image of {example['key']} changed since it was ingested; {REMEDY}")
