"""Text that came from anywhere: how a person is shown it, what its lines are, and JSON of any depth."""

import json
import re
import unicodedata
from typing import Any

UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
"""Characters of letter-like categories that take no room or leave a gap: one name could pass for another."""

_ODD = re.compile(f"[^ -~]|[{UNSEEN}]")
_UNSEEN = re.compile(f"[{UNSEEN}]")

_LINE_END = re.compile(r"\r\n|\r|\n")


def shown(text: str, keep: str = "") -> str:
    r"""Write a text so that it can be read and cannot steer what shows it.

    Letters, marks, numbers, signs and spaces stay. Control characters, line ends, invisible and bidirectional
    ones, halves of surrogate pairs and unassigned ones become escapes such as `\x1b` and `\u202e`; those in
    `keep` stay.
    """
    return _ODD.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] != "C" and category not in ("Zl", "Zp") and not _UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode()


def lines(text: str) -> list[str]:
    r"""Split a text into what an editor shows as its lines: they end with \n, \r\n or \r.

    Unlike `str.splitlines`, other separators, such as U+2028 and U+0085, stay in their line.
    """
    found = _LINE_END.split(text)
    return found if found[-1] else found[:-1]


def one_line(text: str) -> str:
    """Put a message of several lines, such as a library's, into one."""
    return " ".join(text.split())


def dump_json(value: Any) -> str:
    """Write JSON in one line whose letters can be read, and whose other characters are JSON's own escapes."""
    return _ODD.sub(
        lambda match: match[0] if _escaped(match[0]) == match[0] else _json_escaped(match[0]),
        json.dumps(value, ensure_ascii=False),
    )


def _json_escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) > 127 else f"\\u{ord(character):04x}"


def parse_json(data: str | bytes, **options: Any) -> Any:
    """Parse JSON as `json.loads` does. Raises ValueError, for JSON that is nested too deeply as well."""
    try:
        return json.loads(data, **options)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
