"""Local copies of models that lie in an object store: their libraries read files of this machine alone.

    CACHE/<digest>/copy/<the model's own name>

The digest is of the url and of what the store says of each file, so a model that was written anew is copied
anew, and who finds a copy asks the store for one listing. Old copies stay until they are removed.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tagmill.models import links
from tagmill.models.pretrained import MODEL_FILES, fits
from tagmill.tag_system.core import files, locks, secrets, stores
from tagmill.tag_system.core.errors import ConfigError

CACHE = "TAGMILL_MODELS"
"""Variable of the environment that names the folder of the copies, ~/.cache/tagmill/models without it."""

ONNX, OUTSIDE = ".onnx", ".data"
"""Endings of an ONNX file, and of the file with the weights of a large graph, which is named after it."""

COPIED = (*MODEL_FILES, f"*{ONNX}", f"*{ONNX}{OUTSIDE}")
"""Files of a model's folder that are copied, but for `OF_TRAINING`."""

OF_TRAINING = "state.safetensors"
"""What a training goes on with, in its checkpoints: twice as large as the model, and none of its files."""

_ONE_AT_A_TIME = threading.Lock()


def local_copy(place: str) -> str:
    """Give the local path of a model's file or folder, which for a url is copied unless it is here already.

    Of a folder come the files that a model may have (`COPIED`), none of folders in it; with an ONNX file the
    weights beside it; a training's `best` and `last` are followed, see `links`. Raises ConfigError if there
    is no such model, or if it cannot be written here; OSError of the store.
    """
    if files.is_local(place):
        return files.filesystem(place)[1] if "://" in place else place
    place = links.follow(place.rstrip("/"))
    about = _about(place)
    if not about:
        raise ConfigError(f"there is no model {place}: name a folder that has one, or a file")
    said = json.dumps([place, sorted(about.items())])
    folder = _cache() / hashlib.sha256(said.encode()).hexdigest()[:24]
    copy = folder / "copy"
    if not copy.exists():
        with _ONE_AT_A_TIME, _alone(folder):
            if not copy.exists():
                _fetch(place, about, copy)
    return str(copy / place.rsplit("/", 1)[-1])


def local_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put local paths in the places of urls in the options of a built-in model, and of models within."""
    return {name: _local(value) for name, value in options.items()}


def _local(value: Any) -> Any:
    if isinstance(value, Mapping):
        return local_options(value)
    if not isinstance(value, str) or "://" not in (url := secrets.resolve_text(value)):
        return value
    kind, _, place = url.rpartition("dir:")  # open_clip's "local-dir:FOLDER"
    return f"{kind}dir:{local_copy(place)}" if kind else local_copy(url)


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "tagmill" / "models")


def _about(place: str) -> dict[str, tuple[int, str]]:
    """Tell size and stamp of each file of a model, by its path from where the model lies."""
    name = place.rsplit("/", 1)[-1]
    if files.is_folder(place):
        found = files.list_stamps(place)
        return {f"{name}/{one}": found[one] for one in found if fits(one, COPIED) and one != OF_TRAINING}
    beside = [place, place + OUTSIDE] if place.endswith(ONNX) else [place]
    return {uri.rsplit("/", 1)[-1]: files.size_and_stamp(uri) for uri in beside if files.exists(uri)}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes the copy, which would be made twice."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / "lock").open("a")
    except OSError as error:
        raise ConfigError(
            f"cannot write into {folder}: {error.strerror}; set {CACHE} to a folder that takes the models"
        ) from error
    with stream:
        locks.wait(stream)
        yield


def _fetch(place: str, names: Iterable[str], target: Path) -> None:
    with files.replacing(str(target)) as partial:
        for name in names:
            local = partial / name
            local.parent.mkdir(parents=True, exist_ok=True)
            remote = files.join(place.rsplit("/", 1)[0], name)
            fs, path = files.filesystem(remote)
            try:
                with stores.naming(remote):
                    fs.get_file(path, str(local))
            except (FileNotFoundError, stores.StoreError) as error:
                raise ConfigError(f"model {place}: {error}") from error
