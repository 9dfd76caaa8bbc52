"""The base of formats of text that name an image a line: JSON lines, a JSON list, CSV and TSV.

Lines of one image are one example with all their captions. `group` is `adjacent` (lines that follow each
other, the default), True (lines anywhere in the file, brought together on disk), or False (a line an
example). A line with a `key` of its own is an example by itself.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.fields import caption_names, captions_of, image_name, no_image
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.image_files import check_path, key_of, loader
from tagmill.transforms.formats.packed import Ahead, open_text
from tagmill.transforms.formats.spill import Spill
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.formats.url_lists import ENOUGH, is_url, url_list_error, url_name

REMEDY = "; `options: {group: true}` of the input makes one example of the lines of one image"

Group = Literal["adjacent"] | bool


@dataclass(frozen=True)
class Entry:
    """A line, or an object of a list: its number from 1, its fields or what is wrong, its size in bytes."""

    number: int
    fields: dict[str, Any] | DataError
    size: int


@dataclass(frozen=True)
class _TableLine:
    """An entry that names an image; `shared` says whether other lines may be of the same example."""

    number: int
    path: str
    image: str
    key: str
    fields: dict[str, Any]
    size: int
    shared: bool


class TextTable(FileFormat):
    """A format of text; what extends it adds `entries`, and `url_format`, img2dataset's name for it."""

    images_apart = True
    url_format = ""

    def __init__(self, group: Group = "adjacent") -> None:
        if group not in ("adjacent", True, False):
            raise ValueError(f"group is adjacent, true or false, got {group!r}")
        self._group = group

    @abstractmethod
    def entries(self, text: Ahead, source: Source, config: InputConfig, limits: Limits) -> Iterator[Entry]:
        """Walk through a source, which is unpacked, and give its lines in order."""

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a file; see `Format`.

        Raises ConfigError for a file of another format, and for a list of urls without images.
        """
        text = open_text(stream, source, config)
        lines = self._lines(text, source, config, limits)
        if self._group is True:
            yield from _gathered(lines, source, config, limits)
            return
        waiting: list[_TableLine] = []
        for line in lines:
            if isinstance(line, SourceExample):
                yield line
                continue
            if waiting and not (self._group and _is_of(line, waiting, limits)):
                yield _example(waiting, source, config, limits)
                waiting = []
            waiting.append(line)
        if waiting:
            yield _example(waiting, source, config, limits)

    def _lines(
        self, text: Ahead, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[_TableLine | SourceExample]:
        """Find the image of each entry; one that has none is a failing example."""
        lists: list[tuple[str, list[str]]] = []
        found = False
        for entry in self.entries(text, source, config, limits):
            where = f"{source.path}:{entry.number}"
            try:
                if isinstance(entry.fields, DataError):
                    raise entry.fields
                line = _line(entry.number, entry.fields, entry.size, where, source, config)
            except DataError as error:
                yield SourceExample.failing(f"{source.path}#{entry.number}", error.reason, error.detail)
                if isinstance(entry.fields, dict) and (url := url_name(entry.fields)) and not found:
                    lists.append((url, list(entry.fields)))
                if len(lists) == ENOUGH:
                    break
            else:
                found = True
                yield line
        if lists and not found:
            raise url_list_error(source, config, self.url_format, *lists[0])


def _line(
    number: int, fields: dict[str, Any], size: int, where: str, source: Source, config: InputConfig
) -> _TableLine:
    """Take image and key out of an entry's fields. Raises DataError."""
    name = image_name(fields, config)
    if name is None or is_url(fields[name]):
        raise no_image(fields, config, where)
    left = dict(fields)
    path = check_path(left.pop(name), where, source.images)
    own = left.pop("key", None)
    shared = own in (None, "")
    return _TableLine(number, path, name, key_of(path) if shared else str(own), left, size, shared)


def _is_of(line: _TableLine, waiting: list[_TableLine], limits: Limits) -> bool:
    """Tell whether a line is of the same example as those before it, and fits."""
    size = line.size + sum(one.size for one in waiting)
    first = waiting[0]
    return line.shared and first.shared and line.path == first.path and size <= limits.max_record_bytes


def _gathered(
    lines: Iterator[_TableLine | SourceExample], source: Source, config: InputConfig, limits: Limits
) -> Iterator[SourceExample]:
    """Bring the lines of each image together, in the order of the first of them."""
    with Spill() as spill:
        for line in lines:
            if isinstance(line, SourceExample):
                yield line
                continue
            group = line.path if line.shared else f"#{line.number}"
            values = (line.number, line.path, line.image, line.key, line.fields, line.size, line.shared)
            spill.add(group, line.number, json.dumps(values))
        with closing(spill.groups(limits.max_record_bytes)) as groups:
            for group, texts in groups:
                if texts is None:
                    detail = f"{source.path}: the lines of {group} are longer than {limits.max_record_bytes}"
                    key = key_of(group)
                    yield SourceExample.failing(
                        key, Reason.RECORD_TOO_LARGE, f"{detail} (ingest.max_record_bytes)"
                    )
                else:
                    yield _example([_TableLine(*json.loads(text)) for text in texts], source, config, limits)


def _example(lines: list[_TableLine], source: Source, config: InputConfig, limits: Limits) -> SourceExample:
    """Make the example of the lines of one image."""
    first = lines[0]
    fields = first.fields
    captions, used = captions_of(fields, config), caption_names(fields, config)
    if len(lines) > 1:
        captions = [text for line in lines for text in captions_of(line.fields, config)]
        used = tuple(dict.fromkeys(name for line in lines for name in caption_names(line.fields, config)))
        fields = merged_fields([line.fields for line in lines], config)
        splits = {json.dumps(line.fields.get("split")) for line in lines}
        if len(splits) > 1 and not config.split:
            detail = f"{source.path}:{first.number}: lines of one image are of different splits"
            return SourceExample.failing(
                first.key, Reason.RECORD_INVALID, f"{detail}: {', '.join(sorted(splits))}"
            )
    load = loader(first.path, captions, fields, source, limits, config.links, used, seen=(first.image,))
    return SourceExample(first.key, load, REMEDY if first.shared else "")


def merged_fields(lines: list[dict[str, Any]], config: InputConfig) -> dict[str, Any]:
    """Merge the fields of the lines of an image: all captions and labels; of others, one value or a list."""
    if len(lines) == 1:
        return lines[0]
    merged: dict[str, Any] = {}
    taken = {name for line in lines for name in caption_names(line, config)}
    for name in dict.fromkeys(name for line in lines for name in line):
        values = [line.get(name) for line in lines]
        if name in taken:
            listed = [value if isinstance(value, list) else [value] for value in values if value is not None]
            merged[name] = [text for texts in listed for text in texts]
        elif name == config.labels and all(isinstance(value, list | None) for value in values):
            merged[name] = _without_repeats([label for value in values for label in value or ()])
        else:
            merged[name] = values[0] if all(value == values[0] for value in values) else values
    return merged


def _without_repeats(labels: list[Any]) -> list[Any]:
    """Leave out labels that a line before had: each line of an image may have all of them."""
    kept = {json.dumps(label, sort_keys=True): label for label in labels}
    return list(kept.values())
