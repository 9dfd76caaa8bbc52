"""Passwords and tokens: a config refers to them by `${ENV:NAME}`, and what is written holds the reference.

A reference is resolved where its value is used: in the options of a constructor and in the uri of a file. The
values that were resolved are remembered, so that `redaction` can take them out of what libraries say.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.redaction import redacted, remember, shows_secret

T = TypeVar("T")

REFERENCE = re.compile(r"\$\{ENV:([A-Za-z_][A-Za-z0-9_]*)\}")
"""How a config refers to a variable of the environment."""

_NAMES = re.compile(
    r"(^|_)(token|passw(or)?d|passphrase|pwd|secret|credentials?|sas|connection_string|signature"
    r"|(api|access|secret|private|account|shared|auth|encryption|signing|client|subscription|master)_?key"
    r"|(client|secret|access|api|auth)_?(secret|token|password)|authorization|bearer)"
    r"(_?(id|value|string|text|key))?$"
)
"""Keys, in lower case and with underscores, whose values are secrets."""

_SPECIAL_NAMES = re.compile(
    r"(bos|cls|class|end|eos|image|mask|pad|prompt|register|sep|start|text|unk)_token$"
)
_SPECIAL = re.compile(r"[\[<].*[\]>]|")
"""Tokens of text models, such as [PAD], and their names."""


def resolve_text(text: str) -> str:
    """Put the environment's values in the places of references. Raises ConfigError if one is not set."""

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if value is None:
            raise ConfigError(f"the environment variable {match[1]} is not set: a config refers to it")
        remember(value, match[0])
        return value

    return REFERENCE.sub(value_of, text) if "${ENV:" in text else text


def resolve(value: T) -> T:
    """Resolve the references in all texts of a JSON value. Raises ConfigError for one that is not set."""
    made: Any = value
    if isinstance(value, str):
        made = resolve_text(value)
    elif isinstance(value, Mapping):
        made = {name: resolve(item) for name, item in value.items()}
    elif isinstance(value, list | tuple):
        made = type(value)(map(resolve, value))
    return made


def check_no_secrets(where: str, values: Any) -> None:
    """Refuse what looks like a secret in clear. Raises ConfigError, in one line that does not quote it."""
    found = next(secrets_in(values), None)
    if found is not None:
        place = f"{where}: {found}" if found else where
        raise ConfigError(
            f"{place} looks like a secret in clear; write ${{ENV:NAME}} in its place and set the environment "
            "variable NAME"
        )


def secrets_in(values: Any, place: str = "") -> Iterator[str]:
    """Give the dotted keys of what looks like a secret in clear."""
    if isinstance(values, Mapping):
        for name, item in values.items():
            below = f"{place}.{name}" if place else str(name)
            if _is_secret(str(name), item) or _shows_secret(str(name)):
                yield redacted(below)
            else:
                yield from secrets_in(item, below)
    elif isinstance(values, list | tuple):
        for number, item in enumerate(values):
            yield from secrets_in(item, f"{place}.{number}" if place else str(number))
    elif isinstance(values, str) and _shows_secret(values):
        yield place


def _is_secret(name: str, value: Any) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s.-]+", "_", name).lower()
    if not _NAMES.search(words) or isinstance(value, bool):
        return False
    if isinstance(value, int):
        return "token" not in words  # a count, or the number of a word
    if not isinstance(value, str) or _SPECIAL_NAMES.search(words) or _SPECIAL.fullmatch(value):
        return False
    return not REFERENCE.search(value)


def _shows_secret(text: str) -> bool:
    return shows_secret(REFERENCE.sub("", text))
