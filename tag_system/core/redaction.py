"""Takes out of a text what must not be read there: the secrets of URLs, tokens, values of the environment."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

HIDDEN = "***"

SHORTEST = 4
"""Characters that a value has at least to be looked for in what is shown: shorter ones are in every word."""

SHORTEST_WRITTEN = 6
"""The same for what is written, where a shorter value is put back only if it is the whole text."""

_TOKENS = re.compile(
    r"(?<![A-Za-z0-9_-])("
    r"hf_(?=[A-Za-z]*[A-Z0-9]|[a-z]{20})[A-Za-z0-9]{10,}"
    r"|sk-[A-Za-z0-9_-]{12,}"
    r"|gh[pousr]_[A-Za-z0-9]{10,}|github_pat_\w{10,}|glpat-[\w-]{10,}"
    r"|(AKIA|ASIA)[A-Z0-9]{12,}"
    r"|xox[abeoprs]-[\w-]{10,}"
    r"|AIza[\w-]{20,}|ya29\.[\w-]{10,}|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r")|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""What the tokens of well-known services look like."""

_USERINFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/\s?#@:'\"]*):(?P<word>[^/\s?#'\"]*)@"
)
_QUERY = re.compile(
    r"(?P<name>[?&;](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|sig"
    r"|signature|token|(?:access|auth|id|refresh)_token|password|passwd|secret|(?:api|access)[_-]?key"
    r"|apikey|awsaccesskeyid|key)=)(?P<word>[^&;\s#'\")>\]]+)",
    re.IGNORECASE,
)

_resolved: dict[str, str] = {}
"""What stands for each value that was resolved in this process."""


def remember(value: str, name: str) -> None:
    """Have `name` put in the place of a value that is nowhere to be written."""
    if value:
        _resolved[value] = name


def referring(value: T) -> T:
    """Put the references back in the places of resolved values, in all texts of a JSON value."""
    made: Any = value
    if isinstance(value, str):
        made = _resolved.get(value) or _replaced(value, SHORTEST_WRITTEN)
    elif isinstance(value, Mapping) and _resolved:
        made = {referring(name): referring(item) for name, item in value.items()}
    elif isinstance(value, list | tuple) and _resolved:
        made = type(value)(map(referring, value))
    return made


def redacted(text: str) -> str:
    """Take out of a text what must not be read there: values that were resolved, and the secrets of URLs."""
    text = _replaced(text, SHORTEST)
    if "://" in text:
        text = _USERINFO.sub(lambda match: f"{match['scheme']}{HIDDEN}@", text)
        text = _QUERY.sub(lambda match: f"{match['name']}{HIDDEN}", text)
    return _TOKENS.sub(HIDDEN, text)


def _replaced(text: str, shortest: int) -> str:
    # The longest first: a shorter one may be a part of it.
    for value in sorted(_resolved, key=len, reverse=True):
        if len(value) >= shortest:
            text = text.replace(value, _resolved[value])
    return text


def shows_secret(text: str) -> bool:
    """Tell whether a text holds a token of a well-known service, or a URL with a password or signature."""
    found = [*_USERINFO.finditer(text), *_QUERY.finditer(text)] if "://" in text else []
    return bool(_TOKENS.search(text)) or any(match["word"] for match in found)
