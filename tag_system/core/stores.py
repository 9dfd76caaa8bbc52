"""Object stores: how their clients are set up, and what is said of a store that does not do what it is asked.

The clients (s3fs, gcsfs) ask again by themselves, with growing pauses; what they raise at last comes from
several libraries and seldom names the store.
"""

import errno
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import IO, Any, ParamSpec, TypeVar

import fsspec

from tagmill.tag_system.core.redaction import redacted, referring
from tagmill.tag_system.core.text import one_line

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")

BUCKET_TYPES = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
"""Variable of gcsfs that has it ask for a bucket's type by gRPC, and wait a minute where that is blocked."""

CONNECT_SECONDS, READ_SECONDS = 15, 60
"""How long gcsfs waits for a connection, and for the next bytes of an answer, before it asks again."""

CLIENTS = (
    "aiobotocore",
    "aiohttp",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "requests",
    "s3fs",
)
"""Packages whose errors are those of a store."""

ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What a store says of one name."""

LONGEST = 300
"""Characters that are shown of a store's words."""


class StoreError(OSError):
    """A store did not do what it was asked, time and again; a line names it and says what to do.

    It has a number as errors of a connection have, which tells them from those of damaged bytes.
    """

    def __init__(self, line: str, number: int | None) -> None:
        super().__init__(number or errno.EIO, line)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror, self.errno)

    def __str__(self) -> str:
        return str(self.strerror)


def prepare(uri: str) -> None:
    """Set what a store's client reads when it is imported or made, unless the user set it."""
    if not uri.startswith(("gs://", "gcs://")):
        return
    os.environ.setdefault(BUCKET_TYPES, "false")
    settings = fsspec.config.conf.setdefault("gs", {})
    if "requests_timeout" not in settings:
        try:
            import aiohttp
        except ImportError:  # whoever makes the file system says what is missing
            return
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        settings["requests_timeout"] = timeout


_made: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: list[Any] = []


def remember(client: Any) -> None:
    """Have processes that are forked from this one keep the client to their end.

    They cannot use it, for its event loop is left behind. Without a user it would be closed, by another loop,
    which fails and writes a traceback to the log (s3fs).
    """
    _made.add(client)


os.register_at_fork(after_in_child=lambda: _inherited.extend(_made))


@contextmanager
def naming(uri: str) -> Iterator[None]:
    """Raise StoreError for what the client of `uri`'s store raises within, unless that is an answer."""
    try:
        yield
    except (StoreError, *ANSWERS):
        raise
    except Exception as error:
        if "://" not in uri or uri.startswith(("file://", "local://")) or not _is_of_client(error):
            raise
        raise StoreError(_line(uri, error), getattr(error, "errno", None)) from error


def named(function: Callable[ParametersT, ResultT]) -> Callable[ParametersT, ResultT]:
    """Have a function whose first argument is a uri raise what `naming` does."""

    @wraps(function)
    def call(*arguments: ParametersT.args, **options: ParametersT.kwargs) -> ResultT:
        with naming(str(arguments[0])):
            return function(*arguments, **options)

    return call


class NamedStream:
    """A file of a store that is open for reading, and raises what `naming` does."""

    def __init__(self, stream: IO[bytes], uri: str) -> None:
        self._stream = stream
        self._uri = uri

    def read(self, *arguments: Any) -> bytes:
        """Read as the stream does."""
        with naming(self._uri):
            return self._stream.read(*arguments)

    def readinto(self, buffer: Any) -> int:
        """Read as much as the buffer holds."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def __iter__(self) -> Iterator[bytes]:
        with naming(self._uri):
            yield from self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_of_client(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in CLIENTS


def _line(uri: str, error: Any) -> str:
    scheme, _, rest = referring(uri).partition("://")
    said = one_line(str(error))[:LONGEST] or type(error).__name__
    return redacted(
        f"{scheme}://{rest.partition('/')[0]} does not do what it is asked: {said}; see that it can be "
        "reached and lets you in, then run the same command to go on"
    )
