"""Whether the fields of captions and labels were found in an input, asked before a model costs anything."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tagmill.pipeline.records import StageRecord
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms.formats.base import IMAGE_EXTENSIONS, InputConfig
from tagmill.transforms.formats.fields import IMAGES

MAX_SHOWN = 12
"""Names that a message lists."""

CAPTION_LIKE = ("caption", "text", "title", "desc", "sentence", "alt", "prompt")
LABEL_LIKE = ("label", "tag", "categor", "class", "object", "keyword", "concept")
"""What is in the names of fields that probably hold the one or the other."""

_log = logging.getLogger(__name__)


@dataclass
class _Found:
    """What the examples of an input have: how many there are, how many have captions, and fields by name."""

    examples: int = 0
    captioned: int = 0
    seen: Counter[str] = field(default_factory=Counter)


def check_fields(inputs: Sequence[InputConfig], record: StageRecord, *, warn: bool) -> None:
    """Check that fields which a config names are there, in each input of which examples were read.

    With `warn`, an input without any captions is told of. Raises ConfigError, with a line for each input
    none of whose fields for captions, or whose field for labels, was found.
    """
    found = _found(record)
    wrong: list[str] = []
    for source in inputs:
        there = found.get(source.name, _Found())
        if there.examples:
            wrong += _missing(source, there)
    if wrong:
        raise ConfigError(*wrong)
    for source in inputs:
        there = found.get(source.name, _Found())
        if warn and there.examples and not there.captioned and source.captions is None:
            _log.warning("%s", _line(source, "no caption field found", there, _captions_remedy(there)))


def _found(record: StageRecord) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for part in record.parts.values():
        counts = part.notes["fields"]
        one = found.setdefault(part.notes["input"], _Found())
        one.examples += counts["examples"]
        one.captioned += counts["captioned"]
        one.seen.update(counts["seen"])
    return found


def _missing(source: InputConfig, there: _Found) -> Iterator[str]:
    if source.captions and not there.seen.keys() & set(source.captions):
        what = f"no example has {_or(source.captions)}, which `captions` names"
        yield _line(source, what, there, _captions_remedy(there))
    default = InputConfig.model_fields["labels"].default
    if source.labels not in (None, default) and source.labels not in there.seen:
        what = f"no example has `{source.labels}`, which `labels` names"
        likely = _likely(there, LABEL_LIKE)
        yield _line(source, what, there, f"set `labels: {likely or 'null'}`")


def _line(source: InputConfig, what: str, there: _Found, remedy: str) -> str:
    names = sorted(there.seen, key=lambda name: (-there.seen[name], name))
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    saw = ", ".join(f"`{name}`" for name in names[:MAX_SHOWN]) or "nothing but images"
    return f"input {source.name}: {what}; saw {saw}{more}; {remedy}"


def _captions_remedy(there: _Found) -> str:
    likely = _likely(there, CAPTION_LIKE)
    none = "`captions: []` says that there are none"
    return f"set `captions: [{likely}]`; {none}" if likely else none


def _likely(there: _Found, like: Sequence[str]) -> str | None:
    """Give the name that looks most like one of what is wanted, else any that is of no image."""
    names = [name for name in there.seen if name not in IMAGES and name not in IMAGE_EXTENSIONS]
    alike = (name for word in like for name in names if word in name.lower())
    return next(alike, None)


def _or(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)
