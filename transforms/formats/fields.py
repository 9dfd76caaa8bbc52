"""The fields of an example: JSON, columns or members; which of them hold its image and captions."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig

MAX_DEPTH = 50
"""How deeply the JSON of an example may be nested."""

USUAL_CAPTIONS = ("captions", "caption")
"""Fields that hold captions wherever an input names no others: all of them count."""

OTHER_CAPTIONS = (
    "text",
    "texts",
    "TEXT",
    "txt",
    "Caption",
    "CAPTION",
    "alt_text",
    "alt",
    "sentences",
    "conversations",
    "messages",
)
"""Fields of which the first counts that is there, in an example that has none of the usual."""

IMAGES = (
    "image",
    "image_path",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "path",
    "img",
    "img_path",
    "image_name",
    "IMAGE",
)
"""Fields of which the first counts that is there, where an input does not name the one of the image."""

MAX_NAMES = 50
"""Names of fields that are counted of a part; more are only in data whose names are data themselves."""

MAX_NAME_CHARACTERS = 80

_TEXTS = ("raw", "caption", "text")
"""What the text of a caption is called that is an object."""

_SPEAKERS, _SPEECH = ("from", "role"), ("value", "content")
_ANSWERERS = ("gpt", "assistant")
_IMAGE_TOKEN = re.compile(r"<image>\s*")


def parse_object(data: bytes | str, where: str) -> dict[str, Any]:
    """Parse one JSON object. Raises DataError."""
    try:
        # NaN is not JSON, but pandas writes it for what is missing.
        value = json.loads(data, parse_constant=lambda _: None, object_pairs_hook=without_doubles)
    except (ValueError, RecursionError) as error:
        raise DataError(Reason.RECORD_INVALID, f"{where}: {error}") from error
    return check_object(value, where)


def check_object(value: Any, where: str) -> dict[str, Any]:
    """Check that parsed JSON is an object that can be written again. Raises DataError."""
    if not isinstance(value, dict):
        raise DataError(Reason.RECORD_INVALID, f"{where}: expected a JSON object")
    if _is_deep(value):
        raise DataError(Reason.RECORD_INVALID, f"{where}: nested deeper than {MAX_DEPTH} levels")
    return value


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object. Raises ValueError for a name that is there twice, of which one value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name[:80]!r} is there twice")
    return found


def _is_deep(value: Any) -> bool:
    """Tell whether JSON is nested so deeply that writing it again could exceed Python's stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)


def caption_names(fields: Mapping[str, Any], config: InputConfig) -> tuple[str, ...]:
    """Name the fields of an example that hold its captions, in the order in which they count.

    They are those that the input names, else the usual ones, else the first of `OTHER_CAPTIONS`.
    """
    wanted = USUAL_CAPTIONS if config.captions is None else config.captions
    found = tuple(name for name in wanted if fields.get(name) is not None)
    if found or config.captions is not None:
        return found
    return tuple(name for name in OTHER_CAPTIONS if fields.get(name) is not None)[:1]


def captions_of(fields: Mapping[str, Any], config: InputConfig) -> list[Any]:
    """Take the captions out of an example's fields; a field holds one or a list.

    One may be an object with the text as `raw`, `caption` or `text`. Of a conversation, they are what the
    model answers.
    """
    found: list[Any] = []
    for name in caption_names(fields, config):
        value = fields[name]
        found.extend(_texts(value) if isinstance(value, list) else [value])
    return found


def _texts(items: list[Any]) -> list[Any]:
    if items and all(isinstance(item, dict) and _first(item, _SPEAKERS) for item in items):
        said = [_first(item, _SPEECH) for item in items if _first(item, _SPEAKERS) in _ANSWERERS]
        return [_IMAGE_TOKEN.sub("", text) for text in said if isinstance(text, str)]
    return [_first(item, _TEXTS) or item if isinstance(item, dict) else item for item in items]


def _first(item: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Give the first text that stands under one of the names; None if there is none."""
    return next((item[name] for name in names if isinstance(item.get(name), str)), None)


def image_name(fields: Mapping[str, Any], config: InputConfig) -> str | None:
    """Name the field that holds an example's image: one that the input names, else the first guess."""
    wanted = IMAGES if config.image is None else config.image
    return next((name for name in wanted if fields.get(name) not in (None, "")), None)


def no_image(fields: Mapping[str, Any], config: InputConfig, where: str) -> DataError:
    """Make the error of an example in which no field names an image: what there is, and what to set."""
    names = [_shown(name) for name in fields][:MAX_NAMES]
    wanted = " or ".join(f"`{name}`" for name in (IMAGES[:1] if config.image is None else config.image))
    detail = f"{where}: no image path in the field {wanted}"
    if names:
        saw = ", ".join(f"`{name}`" for name in names)
        detail += f"; saw {saw}; set `image: [{names[0]}]` of the input if that is the one"
    return DataError(Reason.RECORD_INVALID, detail)


def _shown(name: str) -> str:
    """Make any name fit to be noted and shown."""
    return (name if name.isprintable() else ascii(name)[1:-1])[:MAX_NAME_CHARACTERS]


class FieldCounts:
    """Counts, over examples, which fields they have and which captions were taken from; of bounded size.

    Fields that the input names are counted in any case, others while there are less than `MAX_NAMES`.
    """

    def __init__(self, config: InputConfig) -> None:
        self._named = {*map(_shown, config.captions or ()), _shown(config.labels or "")}
        self.examples = self.captioned = self.labelled = 0
        self.label_loss = 0.0
        self.seen: Counter[str] = Counter()
        self.used: Counter[str] = Counter()

    def add(self, names: Iterable[str], used: Iterable[str], *, captioned: bool) -> None:
        """Count one example: the names of its fields, those that gave captions, and whether it has any."""
        self.examples += 1
        self.captioned += captioned
        for name in map(_shown, names):
            if name in self.seen or name in self._named or len(self.seen) < MAX_NAMES:
                self.seen[name] += 1
        self.used.update(map(_shown, used))

    def add_labels(self, kept: int, loss: float) -> None:
        """Count the labels of an example that lives: how many it has, and the share that is lost, 0..1."""
        self.labelled += bool(kept or loss)
        self.label_loss += loss

    def to_json(self) -> dict[str, Any]:
        """Give the counts as JSON values, for the notes of a part."""
        counts = {name: getattr(self, name) for name in ("examples", "captioned", "labelled")}
        loss = round(self.label_loss, 6)
        return {**counts, "label_loss": loss, "seen": dict(self.seen), "used": dict(self.used)}
