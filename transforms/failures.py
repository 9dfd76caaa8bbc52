"""Passes the project's own errors from a worker to the driver, whatever runner is between them.

Runners pass errors on as text, cut short or wrapped. So a worker also writes its error into a file of the
folder that it works in, and the driver looks there when a job has failed. It notes the task that it is at as
well: a process that has died says nothing any more.
"""

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError, InputChangedError
from tagmill.tag_system.core.redaction import redacted

CARRIED = (ConfigError, DamageError, InputChangedError)
"""Errors that say what somebody has to do; any other is a bug, and its traceback is the message."""

FOLDER = "failures"

_REFUSED = re.compile(
    r"^(?:\w+: )?(?:OSError|PermissionError): \[Errno (\d+)\] [^:\n\[]*(?:: '([^'\n]*)')?", re.MULTILINE
)

_STORE = re.compile(r"\bStoreError: (.+?)(?: \[while running|$)", re.MULTILINE)


@contextmanager
def noted(folder: str) -> Iterator[None]:
    """Note an error of `CARRIED` that is raised within, and let it pass.

    That a file system is full or refuses is a ConfigError. It most likely refuses the note too, see `told`.
    """
    try:
        try:
            yield
        except OSError as error:
            line = files.refusal(error, folder)
            if line is None:
                raise
            raise ConfigError(line) from error
    except CARRIED as error:
        told = {"error": type(error).__name__, "lines": [redacted(str(one)) for one in error.args]}
        with suppress(OSError):
            data = json.dumps(told).encode()
            uri = files.join(folder, FOLDER, f"{uuid.uuid4().hex}.json")
            files.create_bytes(uri, data, lasting=False)
        raise


@contextmanager
def at(folder: str, task: str) -> Iterator[None]:
    """Note while it lasts that this process is at a task, which may take the process with it."""
    uri = files.join(folder, FOLDER, f"{uuid.uuid4().hex}.at")
    said = json.dumps({"process": os.getpid(), "task": task})
    files.create_bytes(uri, said.encode(), lasting=False)
    try:
        yield
    finally:
        with suppress(OSError):  # what went wrong within is what counts
            files.remove(uri, lasting=False)


def keep(folder: str, text: str) -> str:
    """Keep what a runner said of a job that failed, until another begins; gives the file's uri."""
    uri = files.join(folder, FOLDER, f"{uuid.uuid4().hex}.txt")
    files.create_bytes(uri, redacted(text).encode(), lasting=False)
    return uri


def left_at(folder: str) -> dict[int, str]:
    """Give the tasks that processes of this machine never left, by the process's id."""
    notes = files.join(folder, FOLDER)
    found = [json.loads(files.read_bytes(files.join(notes, name))) for name in files.list_names(notes, ".at")]
    return {note["process"]: note["task"] for note in found}


def forget(folder: str) -> None:
    """Remove what was noted, before another job begins."""
    files.remove(files.join(folder, FOLDER), lasting=False)


def find(folder: str) -> Exception | None:
    """Give an error that a worker noted; None if there is none."""
    notes = files.join(folder, FOLDER)
    for name in files.list_names(notes, ".json"):
        note = json.loads(files.read_bytes(files.join(notes, name)))
        return {kind.__name__: kind for kind in CARRIED}[note["error"]](*note["lines"])
    return None


def told(text: str, folder: str) -> Exception | None:
    """Read in what a runner reports that a file system or store refused, which left no note; else None."""
    for number, path in _REFUSED.findall(text):
        line = files.refusal(OSError(int(number), "", path), folder)
        if line is not None:
            return ConfigError(line)
    of_store = _STORE.search(text)
    return ConfigError(of_store[1]) if of_store else None
