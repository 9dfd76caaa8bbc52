"""Large JSON, written item by item; letters beyond ASCII are escapes, so that any reader takes it."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def dump(value: Any) -> str:
    """Write JSON without blanks. Raises ValueError for NaN, which is not JSON."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


class JsonItems:
    """A file with a JSON list, an item a line; with `name`, the list is that member of an object."""

    def __init__(self, path: Path, name: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="ascii")
        self._start, self._end = (f"{{{dump(name)}:[\n", "\n]}\n") if name else ("[\n", "\n]\n")

    def add(self, item: Any) -> None:
        """Write an item."""
        self._file.write(self._start + dump(item))
        self._start = ",\n"

    def finish(self) -> None:
        """End the list and close the file."""
        self._file.write((self._start if self._start != ",\n" else "") + self._end)
        self._file.close()

    def stop(self) -> None:
        """Close the file as it is."""
        self._file.close()


def write_object(path: Path, members: Mapping[str, Any]) -> None:
    """Write a JSON object; of its members, those that are iterators are lists, an item a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as file:
        for place, (name, value) in enumerate(members.items()):
            file.write(f"{',' if place else '{'}\n{dump(name)}:")
            if isinstance(value, str | int | list | dict):
                file.write(dump(value))
            else:
                _write_items(file, value)
        file.write("\n}\n")


def _write_items(file: Any, items: Iterable[Any]) -> None:
    mark = "["
    for item in items:
        file.write(f"{mark}\n{dump(item)}")
        mark = ","
    file.write("]" if mark == "," else "[]")
