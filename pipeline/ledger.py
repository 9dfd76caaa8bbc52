"""Notes that are created and never replaced: of several in a folder the highest counts.

A store's replace cannot be fenced: a driver that was stopped, overtaken and woken would put its own note in
the place of a newer one. So each driver has a token, higher than that of any driver before it, and a note's
name holds the token of its writer and a number: `_STAGE-<token>-<number>.json`. What an old driver still
writes counts for nothing.
"""

import re
from collections.abc import Callable, Iterator
from itertools import count

from tagmill.transforms import files

NAME = "_STAGE-{:08d}-{:06d}"
_NAME = re.compile(r"_STAGE-(\d{8,})-(\d{6,})\.json")

TOKENS = "tokens"
"""Folder of a run in which each driver's token is a file."""

Place = tuple[int, int]
"""Token and number of a note."""


def places(folder: str) -> list[Place]:
    """List the notes of a folder, the one that counts last."""
    found = (_NAME.fullmatch(name) for name in files.list_names(folder, ".json"))
    return sorted((int(match[1]), int(match[2])) for match in found if match)


def note_uri(folder: str, place: Place) -> str:
    """Name the file of a note."""
    return files.join(folder, NAME.format(*place) + ".json")


def latest(folder: str) -> str | None:
    """Name the note of a folder that counts; None if there is none."""
    found = places(folder)
    return note_uri(folder, found[-1]) if found else None


def superseded(folder: str) -> Iterator[str]:
    """Name the notes of a folder that count no more."""
    for place in places(folder)[:-1]:
        yield note_uri(folder, place)


def add(folder: str, token: int, make: Callable[[Place], bytes | None]) -> str:
    """Add a note, which `make` writes for its place; returns its uri.

    `make` returns None where something of that place is there already, and is asked for the next place.
    """
    own = [number for writer, number in places(folder) if writer == token]
    for number in count(max(own, default=0) + 1):
        data = make((token, number))
        if data is not None and files.create_bytes(note_uri(folder, (token, number)), data):
            return note_uri(folder, (token, number))
    raise AssertionError("numbers do not end")


def claim_token(run: str, owner: bytes = b"") -> int:
    """Take a token that is higher than any that was taken for the run before."""
    folder = files.join(run, TOKENS)
    for token in count(max(tokens(run), default=0) + 1):
        if files.create_bytes(files.join(folder, f"{token:08d}"), owner):
            return token
    raise AssertionError("numbers do not end")


def old_tokens(run: str) -> Iterator[str]:
    """Name the files of all tokens but the last."""
    for token in tokens(run)[:-1]:
        yield files.join(run, TOKENS, f"{token:08d}")


def tokens(run: str) -> list[int]:
    """List the tokens that were taken for a run, ascending."""
    return sorted(int(name) for name in files.list_names(files.join(run, TOKENS)) if name.isdecimal())
