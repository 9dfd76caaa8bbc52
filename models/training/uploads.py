"""Brings what a training wrote on this machine to the store where its `out` is, beside the training.

    OUT/steps/00000120/   the files of a checkpoint, state.json last: without it they are none
    OUT/last, OUT/best    links to two of these, see `tagmill.models.links`
    OUT/log.jsonl, ...    what lies beside them, as it was at the latest checkpoint

One thing goes after the other, in one thread, and who writes the next checkpoint waits for the one before:
so this machine holds one checkpoint that is on its way, and files are read piece by piece.
"""

import inspect
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tagmill.models import links
from tagmill.models.training import checkpoint
from tagmill.models.training.checkpoint import BEST, LAST, STATE, STEPS
from tagmill.tag_system.core import files, stores

PIECE = 16 << 20
"""Bytes of a file that go to S3 in one request: s3fs sends ten at once, by itself of 50 MB each."""


class Uploads:
    """Brings checkpoints from a training's folder `local` to its place `uri` in a store.

    `keep` is as in `checkpoint.save`. `check` raises if another process trains into `uri` now.
    """

    def __init__(self, uri: str, local: Path, *, keep: int, check: Callable[[], None]) -> None:
        self._uri, self._local, self._keep, self._check = uri, local, keep, check
        self._pool = ThreadPoolExecutor(1, "uploads")
        self._waiting: list[Future[None]] = []
        self._failed = False
        self._notes: dict[str, tuple[int, int]] = {}

    def send_checkpoint(self, name: str, *, is_new: bool) -> None:
        """Have a new checkpoint brought and made `last`, or what its evaluation added to an older one."""
        folder, best = self._local / STEPS / name, checkpoint.linked(self._local, BEST)
        saved = checkpoint.files_of(folder)
        # The others are small, and may be written again meanwhile.
        beside = {path.name: path.read_bytes() for path in _files(folder) if path.name not in saved}
        state = beside.pop(STATE)

        def bring() -> None:
            self._send_notes()
            target = files.join(self._uri, STEPS, name)
            for one in saved if is_new else ():
                _put(folder / one, files.join(target, one))
            for one, data in beside.items():
                files.replace_bytes(files.join(target, one), data)
            self._check()
            if best is not None and not is_new:
                links.write(files.join(self._uri, BEST), f"{STEPS}/{best}")
            files.replace_bytes(files.join(target, STATE), state)
            if is_new:
                links.write(files.join(self._uri, LAST), f"{STEPS}/{name}")
            self._prune(best)

        self._submit(bring)

    def send_notes(self) -> None:
        """Have brought what lies beside the checkpoints and has changed."""
        self._submit(self._send_notes)

    def join(self) -> None:
        """Wait until all is in the store. Raises StoreError and the like for what could not be brought."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.result()

    def close(self) -> None:
        """End the thread; what did not begin yet is left."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, call: Callable[[], None]) -> None:
        def run() -> None:
            if self._failed:  # what comes later may rely on it
                return
            try:
                call()
            except BaseException:
                self._failed = True
                raise

        self._waiting.append(self._pool.submit(run))

    def _send_notes(self) -> None:
        for path in _files(self._local):
            about = path.stat().st_size, path.stat().st_mtime_ns
            if self._notes.get(path.name) != about:
                with files.local_scratch(str(path)) as still:  # the training goes on writing
                    shutil.copyfile(path, still)
                    _put(still, files.join(self._uri, path.name))
                self._notes[path.name] = about

    def _prune(self, best: str | None) -> None:
        """Remove the checkpoints that are not to stay, and what is left of those that never were whole."""
        place = files.join(self._uri, STEPS)
        kept = checkpoint.kept_of(names_at(self._uri), self._keep, best)
        for name in files.list_folders(place):
            if name not in kept:
                files.remove(files.join(place, name, STATE))  # first: see `checkpoint`
                files.remove(files.join(place, name))


def names_at(uri: str) -> list[str]:
    """List the checkpoints of a training in a store, the newest last."""
    found = (name.rpartition("/") for name in files.walk(files.join(uri, STEPS)))
    return checkpoint.in_order(folder for folder, _, name in found if name == STATE)


def fetch(uri: str, folder: Path, names: Iterable[str]) -> None:
    """Bring files of a folder in a store into one of this machine; those that are not there are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        place = files.join(uri, name)
        fs, path = files.filesystem(place)
        try:
            with stores.naming(place):
                fs.get_file(path, str(folder / name))
        except FileNotFoundError:
            (folder / name).unlink(missing_ok=True)  # which was opened for it


def send_folder(folder: Path, uri: str, last: str) -> None:
    """Bring the files of a folder of this machine into one of a store, that of the name `last` at the end."""
    for path in sorted(_files(folder), key=lambda path: (path.name == last, path.name)):
        _put(path, files.join(uri, path.name))


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return [path for path in found if not path.name.startswith(files.TEMPORARY)]


def _put(path: Path, uri: str) -> None:
    fs, place = files.filesystem(uri)
    takes = inspect.signature(getattr(fs, "_put_file", fs.put_file)).parameters
    how = {"chunksize": PIECE} if {"chunksize", "max_concurrency"} <= takes.keys() else {}
    with stores.naming(uri):
        fs.put_file(str(path), place, **how)
