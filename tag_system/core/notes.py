"""Notes: JSON objects in files that say whether any of their bytes was changed.

A note begins with the sha256 of the same text without that first member. It tells damage and edits by hand;
who writes a new digest too is told by a digest that was kept elsewhere.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError

_HEAD = re.compile(rb'\{"sha256": "([0-9a-f]{64})", ')
_HEAD_BYTES = len('{"sha256": "') + 64 + len('", ')


def seal_text(text: str) -> bytes:
    """Make a note of the text of a JSON object that is not empty."""
    body = text.encode()
    return b'{"sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'", ' + body.removeprefix(b"{")


def dump(values: Mapping[str, Any]) -> bytes:
    """Write an object as a note, its keys in order."""
    return seal_text(json.dumps(values, sort_keys=True) + "\n")


def parse(data: bytes, uri: str, *keys: str) -> dict[str, Any]:
    """Read the bytes of a note, which must have these keys.

    Raises:
        DamageError: It is not a note, a byte of it was changed, or a key is missing; names `uri`.
    """
    head = _HEAD.match(data)
    try:
        if head is None:
            raise ValueError("it does not begin with its digest")
        body = b"{" + data[head.end() :]
        if hashlib.sha256(body).hexdigest() != head[1].decode():
            raise ValueError("it was changed since it was written")
        found: dict[str, Any] = json.loads(body)
        if not found.keys() >= set(keys):
            raise ValueError(f"it is not an object with {', '.join(keys)}")
    except (ValueError, RecursionError, AttributeError) as error:
        raise DamageError(f"{uri} is damaged ({error}); remove it and run again") from error
    return found


def read_digest(uri: str) -> str:
    """Read the digest that a note begins with, and no more of it; empty if it does not begin so."""
    head = _HEAD.match(files.read_range(uri, 0, _HEAD_BYTES))
    return head[1].decode() if head else ""


def read(uri: str, *keys: str) -> dict[str, Any]:
    """Read a note; see `parse`. Raises FileNotFoundError too."""
    return parse(files.read_bytes(uri), uri, *keys)
