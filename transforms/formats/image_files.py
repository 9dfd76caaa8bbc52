"""Images in files of their own, which a line or a record names by path."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import Limits, Links, Record, Source, check_link, why_missing


def check_path(path: Any, where: str, folder: str = "") -> str:
    """Give the path of an image, relative to the image folder; `where` is the line that names it.

    One that is not relative may lie in `folder`, where the images are.

    Raises DataError for what is not a path of a file in that folder.
    """
    if not isinstance(path, str) or not path:
        raise DataError(Reason.RECORD_INVALID, f"{where}: {str(path)[:80]!a} is not an image path")
    if folder.startswith("/") and path.startswith(folder.rstrip("/") + "/"):
        path = path[len(folder.rstrip("/")) :].lstrip("/")
    if path.startswith("/") or ":" in path or ".." in PurePosixPath(path).parts:
        detail = f"{where}: {path!r} leaves the image folder; write it relative to `images`"
        raise DataError(Reason.RECORD_INVALID, detail)
    if not _is_file_name(path):
        raise DataError(Reason.RECORD_INVALID, f"{where}: {path[:80]!a} is not a file name")
    return path


def _is_file_name(path: str) -> bool:
    try:
        names = [name.encode() for name in PurePosixPath(path).parts]
    except UnicodeEncodeError:
        return False
    return bool(names) and all(len(name) <= 255 and b"\0" not in name for name in names)


def key_of(path: str) -> str:
    """Give the key of an image that has no other: its path without the extension."""
    return str(PurePosixPath(path).with_suffix(""))


def loader(
    path: str,
    captions: list[Any],
    fields: dict[str, Any],
    source: Source,
    limits: Limits,
    links: Links = "within",
    used: tuple[str, ...] = (),
    seen: tuple[str, ...] = (),
) -> Callable[[], Record]:
    """Make the `load` of an example whose image is the file `path` of the image folder.

    `links` is the key of the input: whether links may lead out of that folder; `used` and `seen` are those
    of the `Record`.
    """
    make = partial(Record, captions=captions, fields=fields, used=used, seen=seen)
    return partial(_load, path, make, source, limits, links)


def _load(path: str, make: Callable[..., Record], source: Source, limits: Limits, links: Links) -> Record:
    try:
        with files.opened(files.join(source.images, path)) as found:
            if found.real is not None:
                target = os.path.relpath(found.real, os.path.realpath(source.images))
                check_link(path, target, source.images, links)
            limits.check(path, found.size)
            data = found.stream.read(found.size)
    except OSError as error:
        detail = f"{path[:200]} in {source.images}: {why_missing(error)}"
        raise DataError(Reason.IMAGE_MISSING, detail) from error
    return make({"kind": "file", "uri": path, "offset": 0, "size": len(data)}, data)
