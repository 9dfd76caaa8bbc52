"""Images are read, decoded and prepared in threads, ahead of the model that takes them."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from tagmill.models.base import Image
from tagmill.tag_system.core import pixels
from tagmill.tag_system.core.errors import DataError
from tagmill.tag_system.core.image_header import BYTES_A_PIXEL
from tagmill.transforms.images import (
    AHEAD_IMAGES,
    PIXEL_BYTES,
    check_unchanged,
    decode,
    read_references,
    share_of_rest,
)

Example = dict[str, Any]
"""A row of ingest."""

Prepare = Callable[[Example, Image], Any]
"""Makes of one of ingest's rows and its pixels what is wanted of them; it runs in the threads."""


class Decoder:
    """Reads and decodes images in threads, ahead of whoever takes them.

    All images that are read and not yet taken share `max_bytes` of memory: each what it may take by its
    format and size until it is prepared, and then what that takes; one that needs most of it is decoded
    alone. The threads go on while whoever takes images is at work, until `ahead` images are ready. `least`
    says how wide and high an image must be for what it is prepared for; without it all are decoded whole.

    Attributes:
        seconds: The time that the threads spent decoding.
        preparing: What they spent on the pixels then.
        waited: The time that the taker stood waiting.
    """

    def __init__(
        self,
        threads: int,
        max_pixels: int,
        max_bytes: int = pixels.MAX_BYTES,
        ahead: int = AHEAD_IMAGES,
        least: Callable[[Example], tuple[int, int]] | None = None,
    ) -> None:
        count = max(1, threads)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decode", initializer=_take_one_core)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="decode-read")
        self._max_pixels, self._max_bytes, self._least = max_pixels, max_bytes, least
        self._ahead = max(AHEAD_IMAGES, ahead) + count
        self._feeds: list[_Feed] = []
        self.seconds = 0.0
        self.preparing = 0.0
        self.waited = 0.0

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        for feed in self._feeds:
            feed.close()
        self._reader.shutdown(cancel_futures=True)  # first: the other threads may wait for what it reads
        self._pool.shutdown(cancel_futures=True)

    def pixels(
        self,
        examples: Sequence[Example],
        root: str,
        prepare: Prepare | None = None,
        held: Callable[[Example], int] | None = None,
        reading: Sequence[int] | None = None,
    ) -> Iterator[Any]:
        """Decode the images of ingest's rows, in order; one that cannot be decoded gives its DataError.

        With `prepare`, gives what that makes of an image's pixels; `held` says how many bytes that takes, if
        these are not the image's own. `reading` is the order in which images are read, as places among the
        examples, if it is another: what is read before its turn waits. There must be no other reference to
        what was taken when the next is.
        """
        order = range(len(examples)) if reading is None else reading
        reads = _Reading(self._reader, [examples[place] for place in order], root)
        rank = {place: at for at, place in enumerate(order)}

        def submit(place: int) -> Future[_Made]:
            return self._pool.submit(self._make, reads.take(rank[place]), examples[place], prepare)

        sizes = [_size_of(example, held(example) if held else None) for example in examples]
        feed = _Feed(sizes, submit, lambda place: reads.early(rank[place]), self._max_bytes, self._ahead)
        self._feeds.append(feed)
        for _ in examples:
            yield self._take(feed)

    def _make(self, read: "Future[bytes]", example: Example, prepare: Prepare | None) -> "_Made":
        data = read.result()
        start = time.perf_counter()
        check_unchanged(data, example)
        try:
            least = self._least(example) if self._least else None
            result = decode(data, self._max_pixels, self._max_bytes, least)
        except DataError as error:
            return _Made(error, time.perf_counter() - start, 0.0)
        decoded = time.perf_counter()
        made = prepare(example, result) if prepare else result
        return _Made(made, decoded - start, time.perf_counter() - decoded)

    def _take(self, feed: "_Feed") -> Any:
        start = time.perf_counter()
        made = feed.take()
        self.waited += time.perf_counter() - start
        self.seconds += made.decoding
        self.preparing += made.preparing
        return made.result


@dataclass(frozen=True)
class _Made:
    """What became of an image, or its DataError, and how long that took."""

    result: Any
    decoding: float
    preparing: float


@dataclass(frozen=True)
class _Size:
    """Bytes that an image takes from when it is read until it is prepared, and then until it is taken."""

    making: int
    made: int


def is_huge(example: Example, held: int, max_bytes: int) -> bool:
    """Tell whether an image takes so much of `max_bytes` that nothing read before its turn may wait."""
    return _making(example, held) > max_bytes - share_of_rest(max_bytes)


def _making(example: Example, held: int = 0) -> int:
    """Bound the bytes that an image takes from when it is read until it is prepared, in `held` bytes."""
    area: int = example["width"] * example["height"]
    most = BYTES_A_PIXEL.get(example.get("format", ""), max(BYTES_A_PIXEL.values()))
    size: int = example["image"]["size"]
    return size + max(area * most, area * PIXEL_BYTES + held)


def _size_of(example: Example, held: int | None) -> _Size:
    if held is None:
        return _Size(_making(example), example["width"] * example["height"] * PIXEL_BYTES)
    return _Size(_making(example, held), held)


class _Feed:
    """Hands images to threads in order, as far as memory and `ahead` allow; they are taken in that order.

    `submit` starts the work on the image at a place, `early` says how many bytes wait that were read before
    their turn, once it has.
    """

    def __init__(
        self,
        sizes: Sequence[_Size],
        submit: Callable[[int], "Future[_Made]"],
        early: Callable[[int], int],
        max_bytes: int,
        ahead: int,
    ) -> None:
        self._sizes, self._submit, self._early = sizes, submit, early
        self._max_bytes, self._ahead = max_bytes, ahead
        self._next = 0
        self._waiting: deque[tuple[Future[_Made], _Size]] = deque()
        self._lock = threading.RLock()
        self._is_busy = False

    def take(self) -> _Made:
        """Give the next image when it is ready. Raises what its work did."""
        self._go_on()
        future, _ = self._waiting[0]
        wait([future])
        with self._lock:
            self._waiting.popleft()
        self._go_on()
        return future.result()

    def close(self) -> None:
        """Start nothing more."""
        with self._lock:
            self._next = len(self._sizes)

    def _go_on(self, _: object = None) -> None:
        """Start what there is room for; whoever makes room calls it, in any thread."""
        with self._lock:
            if self._is_busy:  # what was started is done at once, and says so
                return
            self._is_busy = True
            try:
                while self._next < len(self._sizes) and self._has_room():
                    future = self._submit(self._next)
                    self._waiting.append((future, self._sizes[self._next]))
                    self._next += 1
                    future.add_done_callback(self._go_on)
            finally:
                self._is_busy = False

    def _has_room(self) -> bool:
        if not self._waiting:
            return True
        taken = sum(size.made if future.done() else size.making for future, size in self._waiting)
        wanted = self._sizes[self._next].making + self._early(self._next)
        return len(self._waiting) < self._ahead and taken + wanted <= self._max_bytes


class _Reading:
    """Reads images one after the other in a thread of its own; each is taken once, in any order."""

    def __init__(self, thread: ThreadPoolExecutor, examples: Sequence[Example], root: str) -> None:
        self._thread = thread
        self._sizes = [example["image"]["size"] for example in examples]
        self._references = read_references((example["image"] for example in examples), root)
        self._read: dict[int, Future[bytes]] = {}
        self._begun = 0
        self._waiting = 0
        self._error: Exception | None = None

    def early(self, rank: int) -> int:
        """Say how many bytes wait once the image at a place in the order of reading is taken."""
        return self._waiting + sum(self._sizes[self._begun : rank])

    def take(self, rank: int) -> "Future[bytes]":
        """Read up to an image, and hand it over."""
        while self._begun <= rank:
            self._read[self._begun] = self._thread.submit(self._next)
            self._waiting += self._sizes[self._begun]
            self._begun += 1
        self._waiting -= self._sizes[rank]
        return self._read.pop(rank)

    def _next(self) -> bytes:
        if self._error is not None:  # no more is read after it
            raise self._error
        try:
            return next(self._references)
        except Exception as error:
            self._error = error
            raise


def _take_one_core() -> None:
    """Hold this thread to one core, where a numeric library would start several for each of them."""
    if "torch" in sys.modules:
        sys.modules["torch"].get_num_threads()  # sets the thread's number at first sight, so before the limit
    threadpool_limits(limits=1, user_api="openmp")
