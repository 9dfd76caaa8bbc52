"""Reads the annotation files of RAM: a JSON list of an image, its captions, and ids of their tags.

    {"image_path": PATH, "caption": [TEXT, ...], "union_label_id": [ID, ...],
     "parse_label_id": [[ID, ...], ...]}

The option `parsed` says what becomes of the tags: `reparse` leaves it to the engine to find them in the
captions, `trust` makes labels of those of `parse_label_id`, and `union` of those of `union_label_id`, by the
names in the file `tags`, a line a tag, in the order of their ids from 0. The ids stay in meta either way. The
last of several captions is one that a model generated: `generated_caption` in meta is its index. A single
caption that is empty is none.
"""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Literal

from tagmill.tag_system.core.errors import ConfigError, DataError
from tagmill.transforms.formats.base import InputConfig, Limits, Source, SourceExample
from tagmill.transforms.formats.fields import (
    caption_names,
    captions_of,
    check_object,
    image_name,
    no_image,
)
from tagmill.transforms.formats.image_files import check_path, key_of, loader
from tagmill.transforms.formats.json_list import check_json
from tagmill.transforms.formats.json_stream import Item, json_items
from tagmill.transforms.formats.packed import open_text
from tagmill.transforms.formats.several import SeveralFiles
from tagmill.transforms.formats.streams import HashingStream

IDS, UNION = "parse_label_id", "union_label_id"
MAX_TAGS = 1_000_000
"""Names in the file of tags; the official list has 4,585."""

MAX_TAG_BYTES = 64 << 20


class RamAnnotations(SeveralFiles):
    """The format `ram`."""

    version = 2
    images_apart = True
    pattern = "*.json"

    def __init__(
        self,
        tags: str | None = None,
        parsed: Literal["trust", "union", "reparse"] = "reparse",
        generated: Literal["last", "none"] = "last",
    ) -> None:
        """Make the format; with `generated` none, no caption counts as one that a model generated."""
        if parsed not in ("trust", "union", "reparse"):
            raise ValueError(f"parsed is trust, union or reparse, got {parsed!r}")
        if generated not in ("last", "none"):
            raise ValueError(f"generated is last or none, got {generated!r}")
        if (parsed != "reparse") != (tags is not None):
            raise ValueError(
                "`parsed: trust` and `tags`, the file with the name of each id, go together; so does `union`"
            )
        super().__init__({"tags": tags})
        self._trusted = {"trust": IDS, "union": UNION}.get(parsed)
        self._generated = generated == "last"

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a list; see `Format`."""
        names: list[str] = []
        # The names come before the list in the stream, see `uris`: a list is never held.
        for number, one in enumerate(self.streams(stream)):
            if self._trusted and number == 0:
                names = _tag_names(one, config, self.others["tags"])
                continue
            text = open_text(one, source, config)
            check_json(text, source, config)
            for item in json_items(text, limits, source.path):
                where = f"{source.path}: item {item.number}"
                try:
                    yield self._example(item, names, where, source, config, limits)
                except DataError as error:
                    key = f"{source.path}#{item.number}"
                    yield SourceExample.failing(key, error.reason, error.detail)

    def uris(self, uri: str) -> list[str]:
        """Name the files of a source in the order of their stream: tags first."""
        return [*self.others.values(), uri]

    def _example(
        self, item: Item, names: list[str], where: str, source: Source, config: InputConfig, limits: Limits
    ) -> SourceExample:
        if isinstance(item.value, DataError):
            raise item.value
        fields = dict(check_object(item.value, where))
        image = image_name(fields, config)
        if image is None:
            raise no_image(fields, config, where)
        path = check_path(fields.pop(image), where, source.images)
        captions, used = captions_of(fields, config), caption_names(fields, config)
        if captions == [""]:  # of an image that has none: who trains on the list draws one of its captions
            captions = []
        if self._generated and len(captions) > 1:
            fields["generated_caption"] = len(captions) - 1
        if self._trusted and config.labels is not None:
            fields[config.labels] = _labels(fields.get(self._trusted), names)
        load = loader(path, captions, fields, source, limits, config.links, used, seen=(image,))
        return SourceExample(key_of(path), load)


def _labels(ids: Any, names: list[str]) -> Any:
    """Give the names of ids, listed by caption; what is no id stays, for ingest to tell of."""
    if not isinstance(ids, list):
        return ids
    flat = chain.from_iterable(one if isinstance(one, list) else [one] for one in ids)
    found = {str(one): _name(one, names) for one in flat}
    return list(found.values())


def _name(one: Any, names: list[str]) -> Any:
    is_id = isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(names)
    return names[one] if is_id else one


def _tag_names(stream: Any, config: InputConfig, uri: str) -> list[str]:
    """Read the names of tags. Raises ConfigError for a file that is none."""
    data = b"".join(islice(iter(lambda: stream.read(1 << 20), b""), MAX_TAG_BYTES >> 20))
    try:
        names = [line.strip() for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise ConfigError(f"input {config.name}: {uri} is no list of tags: it is not UTF-8") from error
    while names and not names[-1]:
        names.pop()
    if not names or len(names) > MAX_TAGS or not all(names):
        raise ConfigError(
            f"input {config.name}: {uri} is no list of tags: it has a name in each line, 1 to {MAX_TAGS:,}"
        )
    return names
