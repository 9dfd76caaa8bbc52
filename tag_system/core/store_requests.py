"""Counts the requests that object stores get from this process: what stores charge for, beside space."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any


@dataclass(frozen=True)
class StoreRequests:
    """Requests to stores: `reads` of an object or of what is said of it; `writes`, among them listings.

    Stores charge about ten times as much for the second kind.
    """

    reads: float = 0
    writes: float = 0

    def __add__(self, other: "StoreRequests") -> "StoreRequests":
        return StoreRequests(self.reads + other.reads, self.writes + other.writes)

    def __sub__(self, other: "StoreRequests") -> "StoreRequests":
        return StoreRequests(self.reads - other.reads, self.writes - other.writes)


NONE = StoreRequests()
"""No requests."""


def _is_read_of_s3(method: str, *_: Any, **__: Any) -> bool:
    return method in ("get_object", "head_object")


def _is_read_of_google(method: str, path: str, *_: Any, **__: Any) -> bool:
    return method.upper() == "GET" and not path.endswith("/o")


CLIENTS: tuple[tuple[str, str, Sequence[str], Callable[..., bool]], ...] = (
    ("s3fs.core", "S3FileSystem", ("_call_s3", "call_s3"), _is_read_of_s3),
    ("gcsfs.core", "GCSFileSystem", ("_call", "call"), _is_read_of_google),
)
"""Of each client the module, the class, its methods that make a request, and what tells a read."""


class RequestCounter:
    """Counts since it was opened, see `counting`; requests that are made again count once."""

    def __init__(self) -> None:
        self._reads = self._writes = 0

    @property
    def made(self) -> StoreRequests:
        """What was counted so far."""
        return StoreRequests(self._reads, self._writes)

    def note(self, *, is_read: bool) -> None:
        """Count one."""
        self._reads += is_read
        self._writes += not is_read


@contextmanager
def counting() -> Iterator[RequestCounter]:
    """Count the requests of clients that are imported by now, while the block runs; one block at a time."""
    counter, undone = RequestCounter(), []
    try:
        for module, name, methods, is_read in CLIENTS:
            for method in methods if module in sys.modules else ():
                client = getattr(sys.modules[module], name)
                made = getattr(client, method)
                setattr(client, method, _counted(made, counter, is_read))
                undone.append((client, method, made))
        yield counter
    finally:
        for client, method, made in undone:
            setattr(client, method, made)


def _counted(made: Callable[..., Any], counter: RequestCounter, is_read: Callable[..., bool]) -> Any:
    """Wrap a method, which gives a result, or what gives one when it is awaited."""

    @wraps(made)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        counter.note(is_read=is_read(*arguments, **options))
        return made(self, *arguments, **options)

    return call
