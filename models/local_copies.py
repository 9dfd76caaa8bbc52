"""Local copies of models that lie in an object store: their libraries read files of this machine alone.

    CACHE/<digest>/<the model's own name>

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

from tagmill.models.pretrained import MODEL_FILES, fits
from tagmill.tag_system.core import files, locks, stores
from tagmill.tag_system.core.errors import ConfigError

CACHE = "TAGMILL_MODELS"
"""Variable of the environment that names the folder of the copies, ~/.cache/tagmill/models without it."""

_ONE_AT_A_TIME = threading.Lock()


def local_copy(place: str) -> str:
    """Give the local path of a model's file or folder, which for a url is copied unless it is here already.

    Of a folder come the files that a model may have (`MODEL_FILES`), none of folders in it. Raises
    ConfigError if there is no such model, or if it cannot be written here; OSError of the store.
    """
    if files.is_local(place):
        return files.filesystem(place)[1] if "://" in place else place
    about = _about(place)
    if not about:
        raise ConfigError(f"there is no model {place}: name a folder that has one, or a file")
    said = json.dumps([place, sorted(about.items())])
    folder = _cache() / hashlib.sha256(said.encode()).hexdigest()[:24]
    target = folder / place.rstrip("/").rsplit("/", 1)[-1]
    if not target.exists():
        with _ONE_AT_A_TIME, _alone(folder):
            if not target.exists():
                _fetch(place, about, target)
    return str(target)


def local_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Put local paths in the places of urls in the options of a built-in model, and of models within."""
    return {name: _local(value) for name, value in options.items()}


def _local(value: Any) -> Any:
    if isinstance(value, Mapping):
        return local_options(value)
    if not isinstance(value, str) or "://" not in value:
        return value
    kind, _, place = value.rpartition("dir:")  # open_clip's "local-dir:FOLDER"
    return f"{kind}dir:{local_copy(place)}" if kind else local_copy(value)


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "tagmill" / "models")


def _about(place: str) -> dict[str, tuple[int, str]]:
    """Tell size and stamp of each file of a model, by name; "" is the name of one that is a file."""
    if files.is_folder(place):
        return {name: one for name, one in files.list_stamps(place).items() if fits(name, MODEL_FILES)}
    return {"": files.size_and_stamp(place)} if files.exists(place) else {}


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
            local = partial / name if name else partial
            local.parent.mkdir(exist_ok=True)
            remote = files.join(place, name) if name else place
            fs, path = files.filesystem(remote)
            try:
                with stores.naming(remote):
                    fs.get_file(path, str(local))
            except (FileNotFoundError, stores.StoreError) as error:
                raise ConfigError(f"model {place}: {error}") from error
