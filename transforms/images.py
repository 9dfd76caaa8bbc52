"""Image bytes: references to them, what their headers say, and pixels decoded ahead of a model."""

import hashlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from tagmill.models.base import Image
from tagmill.tag_system.core import files, pixels
from tagmill.tag_system.core.errors import DamageError, DataError, InputChangedError
from tagmill.tag_system.core.image_header import BYTES_A_PIXEL
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
"""How many images may be decoded but not yet taken."""

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


def decode(data: bytes, max_pixels: int, max_bytes: int = pixels.MAX_BYTES) -> Image:
    """Decode an image to upright RGB pixels, uint8 (height, width, 3); transparency is laid on white.

    Raises DataError.
    """
    return pixels.decode_array(data, max_pixels, max_bytes)


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


Prepare = Callable[[dict[str, Any], Image], Any]
"""Makes of one of ingest's rows and its pixels what is wanted of them; it runs in the threads."""


class Decoder:
    """Reads and decodes images in threads, ahead of whoever takes them.

    All images that are read and not yet taken share `max_bytes` of memory, each what it may take by its
    format and size; one that needs most of it is decoded alone. `seconds` is the time that the threads spent
    decoding, `preparing` what they spent on the pixels then, and `waited` the time that the taker stood
    waiting.
    """

    def __init__(self, threads: int, max_pixels: int, max_bytes: int = pixels.MAX_BYTES) -> None:
        self._pool = ThreadPoolExecutor(
            max(1, threads), thread_name_prefix="decode", initializer=_take_one_core
        )
        self._max_pixels, self._max_bytes = max_pixels, max_bytes
        self.seconds = 0.0
        self.preparing = 0.0
        self.waited = 0.0

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def pixels(
        self,
        examples: Sequence[dict[str, Any]],
        root: str,
        prepare: Prepare | None = None,
        held: Callable[[dict[str, Any]], int] | None = None,
    ) -> Iterator[Any]:
        """Decode the images of ingest's rows, in order; one that cannot be decoded gives its DataError.

        With `prepare`, gives what that makes of an image's pixels; `held` says how many bytes that takes, if
        these are not the image's own. There must be no other reference to what was taken when the next is.
        """
        waiting: deque[Future[_Made]] = deque()
        rooms: deque[int] = deque()
        references = read_references([example["image"] for example in examples], root)
        for example in examples:
            rooms.append(_room(example, held(example) if held else 0))
            while waiting and (len(waiting) >= AHEAD_IMAGES or sum(rooms) > self._max_bytes):
                rooms.popleft()
                yield self._take(waiting.popleft())
            waiting.append(self._pool.submit(self._make, next(references), example, prepare))
        while waiting:
            yield self._take(waiting.popleft())

    def _make(self, data: bytes, example: dict[str, Any], prepare: Prepare | None) -> "_Made":
        start = time.perf_counter()
        check_unchanged(data, example)
        try:
            result = decode(data, self._max_pixels, self._max_bytes)
        except DataError as error:
            return _Made(error, time.perf_counter() - start, 0.0)
        decoded = time.perf_counter()
        made = prepare(example, result) if prepare else result
        return _Made(made, decoded - start, time.perf_counter() - decoded)

    def _take(self, future: "Future[_Made]") -> Any:
        start = time.perf_counter()
        made = future.result()
        self.waited += time.perf_counter() - start
        self.seconds += made.decoding
        self.preparing += made.preparing
        return made.result


def _room(example: dict[str, Any], held: int) -> int:
    """Bound the bytes that an image takes from when it is read until it is taken."""
    size, area = example["image"]["size"], example["width"] * example["height"]
    most = BYTES_A_PIXEL.get(example.get("format", ""), max(BYTES_A_PIXEL.values()))
    return size + max(area * most, area * PIXEL_BYTES + held)


def _take_one_core() -> None:
    """Hold this thread to one core, where a numeric library would start several for each of them."""
    if "torch" in sys.modules:
        sys.modules["torch"].get_num_threads()  # sets the thread's number at first sight, so before the limit
    threadpool_limits(limits=1, user_api="openmp")


@dataclass(frozen=True)
class _Made:
    """What became of an image, or its DataError, and how long that took."""

    result: Any
    decoding: float
    preparing: float
