"""Numbered notes in a folder, which are created and never replaced: the highest one is valid.

An object store cannot refuse a write by a stopped and replaced driver that wakes up again. So each driver has
a fencing token, higher than that of any driver before it, and a note is named by the token of its writer and
a number: `_STAGE-<token>-<number>.json`. Notes of an older driver never become the highest.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

NAME = "_STAGE-{:08d}-{:06d}"
_NAME = re.compile(r"_STAGE-(\d{8,})-(\d{6,})\.json")

TOKENS = "tokens"
"""Folder of a run in which each driver's token is a file."""

NoteId = tuple[int, int]
"""Token and number of a note; the note with the greatest id of a folder is valid."""


def note_ids(folder: str) -> list[NoteId]:
    """List the notes of a folder, the valid one last."""
    return named_ids(files.list_names(folder, ".json"))


def named_ids(listed: Iterable[str]) -> list[NoteId]:
    """Pick the notes among the names of files, the valid one last."""
    found = (_NAME.fullmatch(name) for name in listed)
    return sorted((int(match[1]), int(match[2])) for match in found if match)


def note_uri(folder: str, note_id: NoteId) -> str:
    """Name the file of a note."""
    return files.join(folder, NAME.format(*note_id) + ".json")


def latest(folder: str) -> str | None:
    """Give the URI of a folder's valid note; None if there is none."""
    found = note_ids(folder)
    return note_uri(folder, found[-1]) if found else None


def superseded(folder: str) -> Iterator[str]:
    """List the URIs of a folder's notes that are no longer valid."""
    for note_id in note_ids(folder)[:-1]:
        yield note_uri(folder, note_id)


def add(folder: str, token: int, make: Callable[[NoteId], bytes | None]) -> str:
    """Add a note, which `make` writes for its id; returns its uri.

    `make` returns None where something of that id is there already, and is asked for the next id.
    Raises ConfigError if the note does not count, since a later driver has written one.
    """
    own = [number for writer, number in note_ids(folder) if writer == token]
    for number in count(max(own, default=0) + 1):
        data = make((token, number))
        if data is not None and files.create_bytes(note_uri(folder, (token, number)), data):
            if note_ids(folder)[-1] != (token, number):
                raise ConfigError(f"another driver has taken over the run: {folder} has newer notes")
            return note_uri(folder, (token, number))
    raise AssertionError("numbers do not end")


def claim_token(run: str, owner: bytes = b"") -> int:
    """Take a token that is higher than any in the run's notes, or that another driver holds."""
    stages = files.list_folders(run)
    noted = [writer for stage in stages for writer, _ in note_ids(files.join(run, stage))[-1:]]
    for token in count(max([0, *noted, *tokens(run)]) + 1):
        if files.create_bytes(_token_uri(run, token), owner):
            return token
    raise AssertionError("numbers do not end")


def give_back_token(run: str, token: int) -> None:
    """Note that a driver has ended, and will write no more notes."""
    files.remove(_token_uri(run, token))


def _token_uri(run: str, token: int) -> str:
    return files.join(run, TOKENS, f"{token:08d}")


def old_tokens(run: str) -> Iterator[str]:
    """Name the files of all tokens but the last."""
    for token in tokens(run)[:-1]:
        yield _token_uri(run, token)


def tokens(run: str) -> list[int]:
    """List the tokens that drivers of a run hold, or held when they were killed, ascending."""
    return sorted(int(name) for name in files.list_names(files.join(run, TOKENS)) if name.isdecimal())
