"""The columns of an Arrow table as JSON values, and Hugging Face's names of classes."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

Classes = Mapping[str, Any] | Sequence[str]
"""Names of classes by their numbers, or such of the fields of a struct, by name."""

_AS_THEY_ARE = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_boolean,
    pa.types.is_null,
)


def class_names(schema: pa.Schema) -> dict[str, Classes]:
    """Read the names of classes that Hugging Face notes in a schema, by column."""
    try:
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = note.get("info", {}).get("features", {}).items()
        found = {name: _classes(feature) for name, feature in features}
    except (ValueError, AttributeError, RecursionError):
        return {}
    return {name: classes for name, classes in found.items() if classes}


def _classes(feature: Any) -> Classes:
    """Find the classes in the note of a column, which may be a list, or a struct, of others."""
    if isinstance(feature, list):
        return _classes(feature[0]) if feature else ()
    if not isinstance(feature, dict):
        return ()
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature.get("names")
        return tuple(map(str, names)) if isinstance(names, list) else ()
    if isinstance(kind, str):
        return _classes(feature.get("feature"))
    found = {name: _classes(inner) for name, inner in feature.items()}
    return {name: classes for name, classes in found.items() if classes}


def from_arrow(kind: pa.DataType, classes: Classes | None) -> Callable[[Any], Any]:
    """Give what makes a JSON value of one of a column; a class becomes its name, and -1 nothing."""
    if classes is None and any(is_of(kind) for is_of in _AS_THEY_ARE):
        return _same
    return lambda value: _plain(value, classes)


def _same(value: Any) -> Any:
    return value


def _plain(value: Any, classes: Classes | None) -> Any:
    if isinstance(value, list):
        return [_plain(item, classes) for item in value]
    if isinstance(value, tuple):  # an entry of a map
        return [_plain(item, None) for item in value]
    if isinstance(value, dict):
        inner = classes if isinstance(classes, Mapping) else {}
        return {name: _plain(item, inner.get(name)) for name, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(classes, tuple):
        return classes[value] if 0 <= value < len(classes) else (None if value == -1 else value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # pandas writes NaN for what is missing
    return value if value is None or isinstance(value, str | int) else str(value)


def labelled(value: Any) -> Any:
    """Give labels as a list: of one label, and of a struct of lists, as detection sets have them."""
    if isinstance(value, dict):
        lists = {name: item for name, item in value.items() if isinstance(item, list)}
        lengths = {len(item) for item in lists.values()}
        if len(lengths) == 1:
            return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        return [value]
    return value if value is None or isinstance(value, list) else [value]
