"""A bounded local copy of shards that lie in an object store, filled ahead of a training and in its order.

The order of an epoch is known, so nothing is guessed: shards are fetched whole in the order in which they are
first used, and leave when they are used no more in the epoch. One thread of one process on a machine does
that; readers take what is there, and read from the store what is not. What a training reads therefore
does not depend on its cache, nor on how fast it fills.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from tagmill.models.training.ranges import RangeReader
from tagmill.tag_system.core import files, locks
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError, DamageError

LOCK = "lock"
"""In the folder of a cache: held by the process that fills it."""

AT_ONCE = 4
"""Ranges of `files.RANGE_BYTES` that are asked for together."""

_PAUSE = 0.2
"""Seconds until it is looked again whether there is room, or whether the cache may be filled."""


class CacheConfig(Config):
    """Where copies of remote shards are kept, and how many bytes of them."""

    folder: str
    max_bytes: int = Field(ge=1)


@dataclass(frozen=True)
class ShardUse:
    """A shard that an epoch reads, and the places in its order that read it first and last."""

    uri: str
    sha256: str
    bytes: int
    first: int
    last: int


class ShardCache:
    """The copies, named by the sha256 of their shard: trainings on one machine may share a folder.

    Raises ConfigError for a folder that cannot be made.
    """

    def __init__(self, config: CacheConfig) -> None:
        self._folder, self._max_bytes = Path(config.folder), config.max_bytes
        self._error: Exception | None = None
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> str:
        """Name the copy of a shard, which may not be there."""
        return str(self._folder / f"{sha256}.tar")

    def check_room(self, sizes: Sequence[Sequence[int]], window: int | None) -> None:
        """Raise ConfigError unless what a window has in use fits: `sizes` of shards in bytes, by dataset."""
        if window is None:
            return
        wanted = sum(sum(sorted(some)[-(window + 2) :]) for some in sizes)
        if wanted > self._max_bytes:
            raise ConfigError(
                f"data.cache.max_bytes: {self._max_bytes} bytes do not hold the shards of data.window "
                f"{window} and the next ones: give {wanted}, or lower data.window"
            )

    @contextmanager
    def filling(self, uses: Sequence[ShardUse], position: Callable[[], int]) -> Iterator[None]:
        """Fetch shards of an epoch while the block runs, unless they are local; `position` is the place."""
        uses = [use for use in uses if not files.is_local(use.uri)]
        ending = threading.Event()
        thread = threading.Thread(target=self._run, args=(uses, position, ending), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def check(self) -> None:
        """Raise what kept a shard from being fetched: ConfigError, DamageError, or OSError of its store."""
        if self._error is not None:
            raise self._error

    def _run(self, uses: Sequence[ShardUse], position: Callable[[], int], ending: threading.Event) -> None:
        try:
            with ExitStack() as stack:
                with self._writing():
                    lock = stack.enter_context((self._folder / LOCK).open("a"))
                while not locks.acquire(lock):  # who fills it may end
                    if ending.wait(_PAUSE):
                        return
                for path in files.temporaries(str(self._folder)):
                    os.unlink(path)
                self._fill(uses, position, ending)
        except Exception as error:  # noqa: BLE001  # `check` raises it where it is heard
            self._error = error

    def _fill(self, uses: Sequence[ShardUse], position: Callable[[], int], ending: threading.Event) -> None:
        last: dict[str, int] = {}
        for use in uses:
            last[use.sha256] = max(use.last, last.get(use.sha256, 0))
        for use in sorted(uses, key=lambda use: use.first):
            if use.bytes > self._max_bytes or os.path.exists(self.path(use.sha256)):
                continue
            while not self._make_room(use.bytes, last, position()):
                if ending.wait(_PAUSE):
                    return
            if use.last >= position():
                self._fetch(use, ending)
            if ending.is_set():
                return

    def _make_room(self, wanted: int, last: Mapping[str, int], position: int) -> bool:
        """Remove copies that the epoch needs no more until there is room; tells whether there is."""
        held = {path: path.stat().st_size for path in self._folder.glob("*.tar")}
        free = self._max_bytes - sum(held.values())
        for path, size in held.items():
            if free < wanted and last.get(path.stem, -1) < position:
                path.unlink()
                free += size
        return free >= wanted

    def _fetch(self, use: ShardUse, ending: threading.Event) -> None:
        """Copy a shard, unless all ends meanwhile. Raises DamageError for one of other bytes."""
        digest = hashlib.sha256()
        with ExitStack() as stack:
            with self._writing():
                scratch = stack.enter_context(files.local_scratch(self.path(use.sha256)))
                stream = stack.enter_context(scratch.open("wb", buffering=0))
            for data in _read(use):
                digest.update(data)
                with self._writing():
                    while data:  # the system may take less than it is given
                        data = data[stream.write(data) :]
                if ending.is_set():
                    return
            if digest.hexdigest() != use.sha256:
                raise DamageError(f"{use.uri} is not the shard that the manifest names: copy it again")
            scratch.replace(self.path(use.sha256))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            is_file = isinstance(error, FileExistsError | NotADirectoryError)
            cure = "name another folder" if is_file else "make room, or lower max_bytes"
            said = f"{self._folder}: {error.strerror or error}; {cure}"
            raise ConfigError(f"data.cache: cannot write into {said}") from error


def _read(use: ShardUse) -> Iterator[bytes]:
    """Read a shard from front to end, by requests of which some are under way at a time."""
    reader, step = RangeReader(), files.RANGE_BYTES
    starts = range(0, use.bytes, step)
    for at in range(0, len(starts), AT_ONCE):
        some = starts[at : at + AT_ONCE]
        yield from reader.read([(use.uri, start, min(start + step, use.bytes)) for start in some])
