"""Where the arguments of commands lie: what is read may be a url."""

from pathlib import Path
from typing import Any


def readable(text: str) -> Path:
    """Give the local path of a file or folder to read; one of an object store is copied, once."""
    from tagmill.models.local_copies import local_copy

    return Path(local_copy(text))


READ: dict[str, Any] = {"parser": readable, "metavar": "PATH"}
"""How an option or argument of Typer's takes such a place."""
