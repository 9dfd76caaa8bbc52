"""The base of formats whose sources are files that a pattern names."""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import takewhile
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
        patterns = [one for path in config.paths for one in files.expand_braces(path)]
        with ThreadPoolExecutor(files.THREADS) as pool:
            found = dict(zip(patterns, pool.map(partial(self._expand, config.name), patterns), strict=True))
        uris = dict.fromkeys(uri for uris in found.values() for uri in uris)
        root = _common_root(config.name, found)
        return root, [uri.removeprefix(root).lstrip("/") for uri in uris]

    def _expand(self, name: str, pattern: str) -> list[str]:
        """List the files of one pattern. Raises ConfigError."""
        uris = files.expand(pattern)
        if not uris:
            where = f" (working directory: {os.getcwd()})" if files.is_local(pattern) else ""
            raise ConfigError(f"input {name}: no file matches {pattern}{where}")
        if not files.exists(pattern):
            return uris
        if files.is_folder(pattern):
            example = files.join(pattern, self.pattern)
            raise ConfigError(f"input {name}: {pattern} is a folder; name its files: {example}")
        if files.is_special(pattern):
            raise ConfigError(
                f"input {name}: {pattern} is a pipe or a device; name a regular file, or a pattern"
            )
        return uris

    def size_and_stamp(self, uri: str) -> tuple[int, str]:
        """Ask the file system; see `Format`."""
        return files.size_and_stamp(uri)

    def open_read(self, uri: str) -> AbstractContextManager[IO[bytes]]:
        """Open the file; see `Format`."""
        return files.open_read(uri)

    def image_folder(self, root: str, uri: str) -> str:
        """Images lie beside the file, or else below the root of all files; see `Format`."""
        return uri.rpartition("/")[0] if self.images_apart else root


def _common_root(name: str, found: Mapping[str, Sequence[str]]) -> str:
    """Give the folder that the files of all patterns lie under. Raises ConfigError if there is none."""
    roots = sorted(
        {_root(pattern, uris) for pattern, uris in found.items()}, key=lambda root: root.split("/")
    )
    if len(roots) == 1:
        return roots[0]
    ends = (roots[0].split("/"), roots[-1].split("/"))
    shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*ends, strict=False))]
    if len(shared) < (3 if "://" in roots[0] else 1):  # of a url, up to the name of a machine or a bucket
        raise ConfigError(f"input {name}: {roots[0]} and {roots[-1]} share no folder; make an input of each")
    return "/".join(shared) or "/"


def _root(pattern: str, uris: Sequence[str]) -> str:
    """Give the folder of a pattern before its first wildcard."""
    fs, path = files.filesystem(pattern)
    is_name = len(uris) == 1 and fs.exists(path)
    folder = (path if is_name else re.split(r"[*?[]", path, maxsplit=1)[0]).rpartition("/")[0]
    # One file system may answer to several names, as s3a and s3: files are listed under the first.
    return folder if files.is_local(pattern) else str(fs.unstrip_protocol(folder))
