"""Finds, tells apart and opens the sources of an input: files, or for the format `folder` whole folders."""

from contextlib import AbstractContextManager
from typing import IO

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms.formats import folder
from tagmill.transforms.formats.base import InputConfig


def folders_of(config: InputConfig) -> list[str]:
    """List the sources of a `folder` input, relative to its path, in order.

    Raises ConfigError if it is no folder, cannot be listed, holds no image, or has a name that is no text.
    """
    if not files.is_folder(config.path):
        raise ConfigError(f"input {config.name}: {config.path} is no folder")
    try:
        found = list(folder.find_folders(config.path))
    except OSError as error:
        raise ConfigError(
            f"input {config.name}: cannot list {error.filename or config.path} ({error.strerror})"
        ) from error
    if not found:
        raise ConfigError(f"input {config.name}: no image in {config.path} or the folders in it")
    for name in found:
        if not name.isprintable():
            raise ConfigError(f"input {config.name}: rename the folder {name!a}: that is no printable text")
    return found


def size_and_stamp(uri: str, config: InputConfig) -> tuple[int, str]:
    """Tell a source's size in bytes and what changes when it is rewritten."""
    return folder.size_and_stamp(uri) if config.format == "folder" else files.size_and_stamp(uri)


def open_read(uri: str, config: InputConfig) -> AbstractContextManager[IO[bytes]]:
    """Open a source for reading, front to end."""
    return folder.open_read(uri) if config.format == "folder" else files.open_read(uri)
