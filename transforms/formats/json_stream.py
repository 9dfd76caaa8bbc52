"""Reads a large JSON file item by item: a list of objects, or an object that holds lists of them.

Only one item is held, and what follows it in a buffer. An item that is too large or no JSON is told of and
passed over.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import Limits
from tagmill.transforms.formats.fields import without_doubles

CHUNK = 1 << 20

_SPACE = re.compile(r"[ \t\r\n]*")
_MARKS = re.compile(r'["\[\]{}]')
_TEXT_END = re.compile(r'["\\]')
_PLAIN_END = re.compile(r"[,\]}\s]")
_CUT = "the file ends before its JSON does"


@dataclass(frozen=True)
class Item:
    """One item of a list: `name` is that of the list, "" for the file's own; `number` counts from 1.

    `value` is what it holds, or the error that there is in its place; `size` is in characters.
    """

    name: str
    number: int
    value: Any
    size: int


def json_items(stream: Any, limits: Limits, where: str) -> Iterator[Item]:
    """Give the items of a list, or of all lists of an object, in the order of the file.

    Other values of an object are passed over. Raises DataError where the file is cut, or is no JSON any more.
    """
    text = _JsonText(stream, limits, where)
    start = text.peek()
    if start == "[":
        yield from _list_items(text, "")
    elif start == "{":
        text.take("{")
        for name in _names(text):
            if text.peek() == "[":
                yield from _list_items(text, name)
            else:
                text.skip_value()
    elif start:
        raise text.error("expected a list of objects, or an object with one")
    if text.peek():
        raise text.error("more follows the end of the JSON")


def _names(text: "_JsonText") -> Iterator[str]:
    """Give the names of an object that was opened, each with the text at its value."""
    while text.peek() != "}":
        name = text.value()
        if not isinstance(name, str):
            raise text.error("expected the name of a value")
        text.take(":")
        yield name
        if text.peek() != "}":
            text.take(",")
    text.take("}")


def _list_items(text: "_JsonText", name: str) -> Iterator[Item]:
    text.take("[")
    number = 0
    while text.peek() != "]":
        number += 1
        before = text.place
        try:
            value: Any = text.value()
        except DataError as error:
            if error.reason is Reason.SOURCE_TRUNCATED:
                raise
            of = f" of {name}" if name else ""
            value = DataError(error.reason, f"{text.where}: item {number}{of}: {error.detail}")
        yield Item(name, number, value, text.place - before)
        if text.peek() != "]":
            text.take(",")
    text.take("]")


class _JsonText:
    """The part that is held of a file's text, and the place in it. What is no UTF-8 becomes surrogates."""

    def __init__(self, stream: Any, limits: Limits, where: str) -> None:
        self._stream = stream
        self._limit, self._key, self._reason = limits.line
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._buffer = ""
        self._at = 0
        self._before = 0
        self._ended = False
        self.where = where
        self._json = json.JSONDecoder(parse_constant=lambda _: None, object_pairs_hook=without_doubles)
        if self.peek() == "\ufeff":
            self._at += 1

    @property
    def place(self) -> int:
        """How many characters were read."""
        return self._before + self._at

    def error(self, what: str) -> DataError:
        """Make the error of a file that is no JSON here."""
        return DataError(Reason.SOURCE_TRUNCATED, f"{self.where}: {what}, at character {self.place}")

    def peek(self) -> str:
        """Give the next character that is no space, "" at the end of the file."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def take(self, mark: str) -> None:
        """Pass over a mark. Raises DataError if there is something else."""
        found = self.peek()
        if found != mark:
            raise self.error(f"expected {mark!r}, found {found!a}" if found else _CUT)
        self._at += 1

    def value(self) -> Any:
        """Read the value that begins here. Raises DataError, behind it, if it is too large or no JSON."""
        self.peek()
        while True:
            try:
                found, end = self._json.raw_decode(self._buffer, self._at)
                if end < len(self._buffer) or self._ended:
                    if end - self._at > self._limit:
                        raise self._too_large(end)
                    self._at = end
                    return found
            except (ValueError, RecursionError) as error:
                if self._ended or self._is_whole():
                    self.skip_value()
                    raise DataError(Reason.RECORD_INVALID, str(error)) from error
            if len(self._buffer) - self._at > self._limit:
                self.skip_value()
                raise self._too_large()
            self._more()

    def _too_large(self, end: int | None = None) -> DataError:
        if end is not None:
            self._at = end
        return DataError(self._reason, f"longer than {self._limit} characters ({self._key})")

    def _more(self) -> bool:
        """Read on, and let go of what was passed over; False at the end of the file."""
        if self._ended:
            return False
        data = self._stream.read(CHUNK)
        self._ended = not data
        self._before += self._at
        self._buffer = self._buffer[self._at :] + self._decoder.decode(data, final=self._ended)
        self._at = 0
        return True

    def _is_whole(self) -> bool:
        """Tell whether the value that begins here ends in what is held, by its brackets."""
        depth, at = 0, self._at
        if self._buffer[at] not in '"[{':
            return _PLAIN_END.search(self._buffer, at) is not None
        while match := _MARKS.search(self._buffer, at):
            at = match.end()
            if match[0] == '"':
                at = self._text_end(at)
                if at < 0:
                    return False
            else:
                depth += 1 if match[0] in "[{" else -1
            if depth <= 0:
                return True
        return False

    def _text_end(self, at: int) -> int:
        """Find the end of a text that was opened before; -1 if it is not held."""
        while match := _TEXT_END.search(self._buffer, at):
            if match[0] == '"':
                return match.end()
            at = match.end() + 1
        return -1

    def skip_value(self) -> None:
        """Pass over a value of any size by its brackets. Raises DataError if the file ends in it."""
        depth, in_text = 0, False
        if self.peek() not in '"[{':
            self._skip_plain()
            return
        while True:
            match = (_TEXT_END if in_text else _MARKS).search(self._buffer, self._at)
            if match is None or (match[0] == "\\" and match.end() == len(self._buffer)):
                self._at = len(self._buffer) if match is None else match.start()
                if not self._more():
                    raise self.error(_CUT)
                continue
            self._at = match.end() + (match[0] == "\\")
            if match[0] == '"':
                in_text = not in_text
            elif match[0] != "\\":
                depth += 1 if match[0] in "[{" else -1
            if not in_text and depth <= 0:
                return

    def _skip_plain(self) -> None:
        start = self.place
        while not (match := _PLAIN_END.search(self._buffer, self._at)):
            self._at = len(self._buffer)
            if not self._more():
                return
        if self._before + match.start() == start:
            raise self.error(f"expected a value, found {match[0]!a}")
        self._at = match.start()
