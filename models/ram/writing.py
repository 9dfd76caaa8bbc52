"""Tensors in a file of safetensors, whose failures are those of the operating system."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path, said: Mapping[str, str] | None = None) -> None:
    """Write tensors, from whatever device, and what is `said` of them. Raises OSError if that fails.

    For a path that `files.replacing` gave: a file that is broken off is not whole.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, None if said is None else dict(said))
    except SafetensorError as error:
        raise OSError(str(error)) from error
