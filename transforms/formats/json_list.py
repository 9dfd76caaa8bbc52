"""Reads a JSON file with a list of objects that each name an image; it is never held whole.

The list is the file, or the one of an object that the option `list` names, else the first list of objects.
"""

from collections.abc import Iterator

from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source
from tagmill.transforms.formats.fields import check_object, parse_object
from tagmill.transforms.formats.json_stream import Item, json_items
from tagmill.transforms.formats.packed import BLANK, HEAD_BYTES, Ahead, wrong_format
from tagmill.transforms.formats.text_lines import other_format
from tagmill.transforms.formats.text_tables import Entry, Group, TextTable


class JsonList(TextTable):
    """The format `json`."""

    pattern = "*.json"
    url_format = "json"

    def __init__(self, list: str | None = None, group: Group = "adjacent") -> None:
        super().__init__(group)
        self._list = list

    def entries(self, text: Ahead, source: Source, config: InputConfig, limits: Limits) -> Iterator[Entry]:
        """Give the objects of the list."""
        check_json(text, source, config)
        chosen = self._list
        names = set()
        for item in json_items(text, limits, source.path):
            names.add(item.name)
            if chosen is None and (item.name == "" or isinstance(item.value, dict)):
                chosen = item.name
            if item.name == chosen:
                yield _entry(item, source)
        if self._list is not None and self._list not in names:
            found = ", ".join(f"`{name}`" for name in sorted(names) if name) or "none of a name"
            raise ConfigError(
                f"input {config.name}: {source.uri} has no list `{self._list}`, which the option list names; "
                f"it has {found}"
            )
        if chosen is None and names:
            raise DataError(Reason.SOURCE_UNREADABLE, f"{source.path} has no list of objects")


def check_json(text: Ahead, source: Source, config: InputConfig) -> None:
    """Raise ConfigError, which names the format to use, for JSON lines and tables."""
    first, _, rest = text.peek(HEAD_BYTES).lstrip(BLANK).partition(b"\n")
    if first.startswith(b"{") and rest.lstrip().startswith(b"{"):
        try:
            parse_object(first, "")
        except DataError:
            return
        raise wrong_format(source, config, "JSON lines: use format jsonl")
    if what := other_format(first):
        raise wrong_format(source, config, what)


def _entry(item: Item, source: Source) -> Entry:
    value = item.value
    if not isinstance(value, DataError):
        try:
            value = check_object(value, f"{source.path}: item {item.number}")
        except DataError as error:
            value = error
    return Entry(item.number, value, item.size)
