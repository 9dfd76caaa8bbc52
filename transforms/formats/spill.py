"""A table on disk that brings together what lies far apart in a source: the lines of an image, say."""

import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType

from tagmill.tag_system.core.errors import ConfigError

BATCH = 1_000
"""Rows that are written together."""

CACHE_KIB = 16 << 10


class Spill:
    """Texts by group, in a temporary file; open it as a context. Memory does not grow with their number.

    Methods raise ConfigError where the folder for temporary files is full.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tagmill-spill-")
        self._base = sqlite3.connect(Path(self._folder.name, "rows"), isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            self._base.execute(f"PRAGMA {setting}")
        self._base.execute("CREATE TABLE rows (part BLOB, place INTEGER, text TEXT)")
        self._base.execute("BEGIN")
        self._indexed = False
        self._waiting: list[tuple[bytes, int, str]] = []

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()
        self._folder.cleanup()

    def add(self, group: str, place: int, text: str) -> None:
        """Add a text; texts of a group are ordered by place, and groups by the lowest place in them."""
        self._waiting.append((_bytes(group), place, text))
        if len(self._waiting) == BATCH:
            with _disk():
                self._write()

    def _write(self) -> None:
        self._base.executemany("INSERT INTO rows VALUES (?, ?, ?)", self._waiting)
        self._waiting.clear()

    def _index(self) -> None:
        if not self._indexed:
            self._write()
            self._base.execute("CREATE INDEX by_group ON rows (part, place)")
            self._base.execute("COMMIT")
            self._indexed = True

    def texts(self, group: str, limit: int) -> list[str] | None:
        """Give the texts of one group, when all are added; None for more characters than `limit` in all."""
        with _disk():
            self._index()
            query = "SELECT part, text FROM rows WHERE part = ? ORDER BY place"
            return _within(self._base.execute(query, (_bytes(group),)), limit)

    def groups(self, limit: int) -> Generator[tuple[str, list[str] | None]]:
        """Give the groups in order, each with its texts; None for more characters than `limit` in all."""
        with _disk():
            self._index()
            found = self._base.execute(
                "SELECT rows.part, text FROM rows JOIN "
                "(SELECT part, MIN(place) AS first FROM rows GROUP BY part) AS firsts "
                "ON rows.part = firsts.part ORDER BY first, place"
            )
            for group, rows in groupby(found, key=itemgetter(0)):
                yield group.decode(errors="surrogatepass"), _within(rows, limit)

    def sorted_texts(self) -> Generator[str]:
        """Give all texts in the order of their groups' names, and of their places in these."""
        with _disk():
            self._index()
            for (text,) in self._base.execute("SELECT text FROM rows ORDER BY part, place"):
                yield text


def _bytes(group: str) -> bytes:
    """Write a group as bytes: the name of a file need not be UTF-8."""
    return group.encode(errors="surrogatepass")


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        folder = tempfile.gettempdir()
        raise ConfigError(
            f"cannot write a temporary table in {folder} ({error}); TMPDIR may name another folder"
        ) from error


def _within(rows: Iterator[tuple[bytes, str]], limit: int) -> list[str] | None:
    texts: list[str] = []
    size = 0
    for _, text in rows:
        size += len(text)
        if size > limit:
            return None
        texts.append(text)
    return texts
