"""The licence that the images of an export share, if they do."""

import re

from tagmill.tag_system.core.text import parse_json

_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]{1,60}")


class Licences:
    """Reads the field `license` of the source's JSON, example by example."""

    def __init__(self) -> None:
        self._found: set[str | None] = set()

    def add(self, meta: str) -> None:
        """Take an example's `meta`."""
        if len(self._found) < 2:
            self._found.add(_licence(meta))

    @property
    def agreed(self) -> str | None:
        """The licence of all examples, in small letters as Hugging Face names them; None if there is none."""
        return next(iter(self._found)) if len(self._found) == 1 else None


def _licence(meta: str) -> str | None:
    try:
        said = parse_json(meta)
    except ValueError:
        return None
    found = said.get("license") if isinstance(said, dict) else None
    name = found.strip().lower().replace(" ", "-") if isinstance(found, str) else ""
    return name if _NAME.fullmatch(name) else None
