"""Where a pretrained model's files are, what identifies them, and where the model runs.

A checkpoint is a local folder or the name of a repository on the Hugging Face hub. A hub name is
resolved to one commit, first from the local cache, so that a run that has its models works offline
and two runs with the same fingerprint have read the same weights.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16")
"""Number formats that a built-in model can run in; results are always float32."""

MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin", "*.pth", "*.pt")
"""Files of a checkpoint's folder that can change what the model computes."""


class CheckpointSource:
    """A checkpoint's folder: on this machine, or in a repository of the hub.

    `place` is the folder, or the repository's name `owner/name` if `on_hub`; `revision` a branch,
    tag or commit, None for the cached or else the newest state. `needs` lists for each file that
    must be there the patterns of names that will do, the first one a plain name; `fetch` lists the
    patterns of what to download. Raises ConfigError if a local folder lacks a file.
    """

    def __init__(
        self,
        place: str,
        *,
        on_hub: bool,
        revision: str | None,
        needs: Sequence[Sequence[str]],
        fetch: Sequence[str],
    ) -> None:
        self._place, self._on_hub, self._revision = place, on_hub, revision
        self._needs, self._fetch = needs, fetch
        if not on_hub:
            require_files(Path(place), needs)

    def folder(self) -> Path:
        """Give the folder; one of the hub is named after its commit, and downloaded if need be.

        Raises ConfigError if the repository is neither cached as a whole nor reachable.
        """
        if not self._on_hub:
            return Path(self._place)
        import huggingface_hub

        revision = self._revision
        try:
            cached = huggingface_hub.try_to_load_from_cache(self._place, self._needs[0][0], revision=revision)
        except ValueError as error:
            raise ConfigError(
                f"model {self._place!r} is not a name on the Hugging Face hub: {error}"
            ) from error
        missing = [" or ".join(need) for need in self._needs]
        if isinstance(cached, str):
            revision = Path(cached).parent.name
            missing = missing_files(Path(cached).parent, self._needs)
            if not missing:
                return Path(cached).parent
        try:
            found = Path(
                huggingface_hub.snapshot_download(
                    self._place, revision=revision, allow_patterns=list(self._fetch)
                )
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"model {self._place!r} is not a local folder, the cache of the Hugging Face hub has no "
                f"{', no '.join(missing)} of it, and it cannot be downloaded ({type(error).__name__}); "
                "give the path of a folder that has it"
            ) from error
        require_files(found, self._needs)
        return found

    def fingerprint(self, options: Mapping[str, Any]) -> str:
        """Hash the options with the folder's files, or with the hub's name and commit."""
        folder = self.folder()
        if self._on_hub:
            return digest([], {**options, "hub": f"{self._place}@{folder.name}"})
        return digest([path for path in folder.iterdir() if fits(path.name, MODEL_FILES)], options)


def missing_files(folder: Path, needs: Sequence[Sequence[str]]) -> list[str]:
    """Say which needs (see `CheckpointSource`) no file of the folder meets."""
    names = [path.name for path in folder.iterdir()]
    return [" or ".join(need) for need in needs if not any(fits(name, need) for name in names)]


BEST_AND_LAST = ("best", "last")
"""Links in the folder of a training that lead to a model's: the best one, and the last."""


def require_files(folder: Path, needs: Sequence[Sequence[str]]) -> None:
    """Raise ConfigError that names the folder, and what it lacks, unless all needs are met."""
    if not folder.is_dir():
        raise ConfigError(f"there is no model folder {folder}")
    if missing := missing_files(folder, needs):
        inner = [folder / name for name in BEST_AND_LAST]
        whole = [one for one in inner if one.is_dir() and not missing_files(one, needs)]
        cure = f": it is a training's, name {whole[0]}" if whole else ""
        raise ConfigError(f"model folder {folder} has no {', no '.join(missing)}{cure}")


class Versioned(Protocol):
    """A class of models whose fingerprints hold a version."""

    version: ClassVar[int]


def changed(model: type[Versioned], options: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a fingerprint holds of a model's options: those that differ from its constructor's defaults.

    So an option that is added later changes no fingerprint where it is not used. `version`, the class's own,
    stands for the defaults and for the code: it is raised when the same files and options give other output.
    """
    defaults = {name: one.default for name, one in inspect.signature(model).parameters.items()}
    found = {name: value for name, value in options.items() if value != defaults[name]}
    return {**found, "version": model.version}


def digest(paths: Sequence[Path], options: Mapping[str, Any]) -> str:
    """Hash the names and bytes of the files, in any order, and the options: 64 hex digits."""
    parts = sorted((path.name, files.sha256(str(path))) for path in paths)
    text = json.dumps([parts, dict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a name fits any of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def check_dtype(dtype: str) -> None:
    """Raise ConfigError unless `dtype` is one of `DTYPES`."""
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")


def resolve_device(device: str) -> str:
    """Resolve "auto" to "cuda" or "cpu". Raises ConfigError for any other name that is not a device here."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ConfigError(f"there is no device {device!r}: {reason}") from error
    return device


def placed(images: Sequence[Any], device: str, dtype: Any) -> Any:
    """Stack prepared images, arrays or tensors of one shape, into a tensor on a device.

    A GPU is given them through pinned memory, so that the copy does not hold up this thread, and converts
    them itself.
    """
    import torch

    tensors = [torch.as_tensor(image) for image in images]
    if not device.startswith("cuda"):
        return torch.stack(tensors).to(device, dtype)
    pinned = torch.empty((len(tensors), *tensors[0].shape), dtype=tensors[0].dtype, pin_memory=True)
    torch.stack(tensors, out=pinned)
    return pinned.to(device, non_blocking=True).to(dtype)
