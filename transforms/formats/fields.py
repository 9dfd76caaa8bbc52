"""The JSON fields of an example."""

import json
from collections import Counter
from typing import Any

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig

MAX_DEPTH = 50
"""How deeply the JSON of an example may be nested."""


def parse_object(data: bytes | str, where: str) -> dict[str, Any]:
    """Parse one JSON object. Raises DataError."""
    try:
        # NaN is not JSON, but pandas writes it for what is missing.
        value = json.loads(data, parse_constant=lambda _: None, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(Reason.RECORD_INVALID, f"{where}: {error}") from error
    if not isinstance(value, dict):
        raise DataError(Reason.RECORD_INVALID, f"{where}: expected a JSON object")
    if _is_deep(value):
        raise DataError(Reason.RECORD_INVALID, f"{where}: nested deeper than {MAX_DEPTH} levels")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)


def captions_of(fields: dict[str, Any], config: InputConfig) -> list[Any]:
    """Take the captions out of an example's JSON fields; a field holds one or a list."""
    found: list[Any] = []
    for name in config.captions:
        value = fields.get(name)
        found.extend(value if isinstance(value, list) else [] if value is None else [value])
    return found
