"""A model's folder as one file for others: the official checkpoint, ONNX, or a torch.export archive.

.pth, .safetensors   all weights under the published names (see `official`)
.onnx                normalised images [B, 3, S, S] to logits [B, classes]; the config is in its metadata;
                     of an open set with the input `labels`, see `onnx_file`
.pt2                 the same graph for torch.export.load; for C++ too, by AOTInductor

The batch of the graphs is free. Both are run on batches of other sizes than they were traced with, and
compared with the model, before they get their name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tagmill.models.base import Image
from tagmill.models.ram import graph, official, onnx_file
from tagmill.models.ram.int8 import Agreement
from tagmill.models.ram.store import Model
from tagmill.models.ram.writing import save_tensors
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError


@dataclass(frozen=True)
class Exported:
    """What was written: tensors of a checkpoint, or the largest difference of a graph's logits."""

    tensors: int | None = None
    difference: float | None = None
    agreement: Agreement | None = None


def export(
    model: Model, path: Path, *, open_set: bool = False, int8: Sequence[Image] | None = None
) -> Exported:
    """Write a model, in eval mode on the CPU, into a file whose ending says as what.

    `open_set`: an ONNX file takes the label embeddings of other classes, see `onnx_file`. `int8`: its weights
    have 8 bits, and these images, at least one, say how it agrees with float32. Raises ConfigError
    for another ending, a file that exists, and what cannot be written, there or that way.
    """
    check(path, open_set=open_set, int8=int8 is not None)
    if open_set and model.config.kind == "tag2text":
        raise ConfigError("Tag2Text learns its classes: leave --open-set out")
    with files.replacing(str(path)) as partial:
        if int8 is not None:
            difference, agreement = onnx_file.write_int8(model, partial, int8, open_set=open_set)
            return Exported(difference=difference, agreement=agreement)
        if open_set:
            return _write_onnx(model, partial, open_set=True)
        return WRITERS[path.suffix](model, partial)


def check(path: Path, *, open_set: bool = False, int8: bool = False) -> None:
    """Raise ConfigError unless a file of this name can be written: its ending is known, and it is new."""
    for option, is_given in (("--int8", int8), ("--open-set", open_set)):
        if is_given and path.suffix != ".onnx":
            raise ConfigError(f"{path}: {option} makes ONNX files: name one that ends in .onnx")
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path}: the file's ending says the format, one of {', '.join(WRITERS)}")
    if path.exists():
        raise ConfigError(f"{path} exists already: name a new file")


def _write_pth(model: Model, path: Path) -> Exported:
    published = official.weights(model)
    _torch_write(torch.save, {"model": published}, path)
    return Exported(tensors=len(published))


def _write_safetensors(model: Model, path: Path) -> Exported:
    published = {name: tensor.clone() for name, tensor in official.weights(model).items()}
    save_tensors(published, path)
    return Exported(tensors=len(published))


def _write_onnx(model: Model, path: Path, *, open_set: bool = False) -> Exported:
    return Exported(difference=onnx_file.write(model, path, open_set=open_set))


def _write_pt2(model: Model, path: Path) -> Exported:
    _torch_write(torch.export.save, graph.trace(model), path)
    return Exported(difference=graph.compare(model, torch.export.load(path).module(), path))


def _torch_write(save: Callable[[Any, Path], None], content: Any, path: Path) -> None:
    """Let torch write a file. It raises RuntimeError for what the operating system does not let it."""
    try:
        save(content, path)
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from error


WRITERS: dict[str, Callable[[Model, Path], Exported]] = {
    ".pth": _write_pth,
    ".safetensors": _write_safetensors,
    ".onnx": _write_onnx,
    ".pt2": _write_pt2,
}
"""How each format is written, by the file's ending."""
