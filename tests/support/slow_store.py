"""A local folder as an object store shows it: `slow:///a/folder`, every request counted, and slow if asked.

Requests are those of the usual stores: a look at a name, which goes on to a listing where there is no object
of that name, as a folder has none; a listing of a page of names; a read of a range; a write; a copy; a
removal. What is sent together waits together.
"""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

PAGE = 1000
"""Names that one request lists."""


class SlowFileSystem(AbstractFileSystem):
    """The store.

    Attributes:
        delay: Seconds that each request takes.
        requests: What was asked for, in order, since `counted` began: kind and path.
        read: Bytes that were read since then.
        page: Names that one request lists.
    """

    protocol = "slow"
    root_marker = "/"
    delay: ClassVar[float] = 0.0
    page: ClassVar[int] = PAGE
    requests: ClassVar[list[tuple[str, str]]] = []
    read: ClassVar[int] = 0
    _lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return "/" + str(path).removeprefix("slow:").strip("/")

    def _request(self, kind: str, path: str, count: int = 1, size: int = 0) -> None:
        with self._lock:
            self.requests.extend([(kind, path)] * count)
            type(self).read += size
        for _ in range(count if self.delay else 0):  # a page names the next one
            time.sleep(self.delay)

    def _list(self, path: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._request("list", path, max(1, -(-len(found) // self.page)))
        return found

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        self._request("look", path)
        if os.path.isfile(path):
            return _entry(path)
        self._request("list", path)
        if os.path.isdir(path) and os.listdir(path):
            return _entry(path)
        raise FileNotFoundError(path)

    def exists(self, path: str, **_: Any) -> bool:
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        if os.path.isfile(path):
            return [self.info(path)] if detail else [path]
        there = os.scandir(path) if os.path.isdir(path) else []
        found = self._list(path, [_entry(entry.path) for entry in there])
        if not found:
            raise FileNotFoundError(path)
        return found if detail else [entry["name"] for entry in found]

    def find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, **options: Any) -> Any:
        if maxdepth is not None or withdirs:
            return super().find(path, maxdepth, withdirs, **options)
        path = self._strip_protocol(path)
        below = [os.path.join(at, name) for at, _, names in os.walk(path) for name in names]
        found = self._list(path, [_entry(one) for one in sorted(below)])
        return {one["name"]: one for one in found} if options.get("detail") else [o["name"] for o in found]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        with open(path, "rb") as stream:
            stream.seek(start or 0)
            data = stream.read(-1 if end is None else end - (start or 0))
        self._request("read", path, size=len(data))
        return data

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        self._request("write", path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with self._lock:
            if mode == "create" and os.path.exists(path):
                raise FileExistsError(path)
            Path(path).write_bytes(value)

    def put_file(
        self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **_: Any
    ) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes(), mode)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        self._request("copy", path1)
        os.makedirs(os.path.dirname(path2), exist_ok=True)
        shutil.copyfile(path1, path2)

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        self._request("remove", path)
        os.remove(path)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        path = self._strip_protocol(path)
        if os.path.isdir(path):
            self._request("remove", path, max(1, -(-len(self.find(path)) // self.page)))
            shutil.rmtree(path)
        else:
            self.rm_file(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        os.makedirs(self._strip_protocol(path), exist_ok=True)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return _SlowFile(self, path, mode, **options)


class _SlowFile(AbstractBufferedFile):
    """A file that is read in blocks, as those of stores are: its size is looked up first."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.cat_file(self.path, start, end)

    def _upload_chunk(self, final: bool = False) -> bool:
        if final:
            self.buffer.seek(0)
            self.fs.pipe_file(self.path, self.buffer.read())
        return final


def _entry(path: str) -> dict[str, Any]:
    info = os.stat(path)
    kind = "directory" if os.path.isdir(path) else "file"
    return {"name": path, "size": info.st_size, "type": kind, "mtime": info.st_mtime}


@contextmanager
def counted(delay: float = 0.0) -> Iterator[list[tuple[str, str]]]:
    """Give the list of requests, (kind, path), that grows while the context is open; they take `delay`."""
    SlowFileSystem.requests, SlowFileSystem.read, SlowFileSystem.delay = [], 0, delay
    try:
        yield SlowFileSystem.requests
    finally:
        SlowFileSystem.delay = 0.0


def by_kind(requests: list[tuple[str, str]], root: str) -> Counter[tuple[str, str]]:
    """Count requests by kind and by the stage and sort of file, the names of parts left out."""
    return Counter((kind, _sort(path.removeprefix(root).strip("/"))) for kind, path in requests)


def _sort(path: str) -> str:
    *folders, name = path.split("/")
    folders = [folder for place, folder in enumerate(folders) if place != 1]
    return "/".join([*folders, "*" + "".join(Path(name).suffixes) if "." in name else name])


fsspec.register_implementation("slow", SlowFileSystem, clobber=True)
