"""The words of a caption that gave tags."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def split_mentions(
    caption: str, mentions: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Cut a caption into texts in order, each with the mention (a record of parse) that it is, or None.

    Where mentions overlap, the first one has the letters.
    """
    place = 0
    for mention in sorted(mentions, key=lambda one: (one["start"], one["end"])):
        start = max(mention["start"], place)
        if start < mention["end"]:
            if place < start:
                yield caption[place:start], None
            yield caption[start : mention["end"]], mention
            place = mention["end"]
    if place < len(caption):
        yield caption[place:], None
