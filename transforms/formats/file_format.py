"""The base of formats whose sources are files that a pattern names."""

import os
import re
from contextlib import AbstractContextManager
from typing import IO

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms.formats.base import Format, InputConfig


class FileFormat(Format):
    """A format whose sources are single files; what extends it adds `read`.

    `pattern` is what to show to somebody who named a folder. Where images lie apart, they lie beside their
    source's file.
    """

    version = 1
    images_apart = False
    pattern = "*"

    def find_sources(self, config: InputConfig) -> tuple[str, list[str]]:
        """List the files that match the input's path; see `Format`."""
        uris = files.expand(config.path)
        if not uris:
            where = f" (working directory: {os.getcwd()})" if files.is_local(config.path) else ""
            raise ConfigError(f"input {config.name}: no file matches {config.path}{where}")
        if files.is_folder(config.path):
            example = files.join(config.path, self.pattern)
            raise ConfigError(f"input {config.name}: {config.path} is a folder; name its files: {example}")
        if files.exists(config.path) and files.is_special(config.path):
            raise ConfigError(
                f"input {config.name}: {config.path} is a pipe or a device; name a regular file, or a pattern"
            )
        root = _root(config.path)
        return root, [uri.removeprefix(root).lstrip("/") for uri in uris]

    def size_and_stamp(self, uri: str) -> tuple[int, str]:
        """Ask the file system; see `Format`."""
        return files.size_and_stamp(uri)

    def open_read(self, uri: str) -> AbstractContextManager[IO[bytes]]:
        """Open the file; see `Format`."""
        return files.open_read(uri)

    def image_folder(self, root: str, uri: str) -> str:
        """Images lie beside the file, or else below the root of all files; see `Format`."""
        return uri.rpartition("/")[0] if self.images_apart else root


def _root(pattern: str) -> str:
    """Give the folder of a pattern before its first wildcard."""
    fs, path = files.filesystem(pattern)
    folder = re.split(r"[*?[]", path, maxsplit=1)[0].rpartition("/")[0]
    # One file system may answer to several names, as s3a and s3: files are listed under the first.
    return folder if files.is_local(pattern) else str(fs.unstrip_protocol(folder))
