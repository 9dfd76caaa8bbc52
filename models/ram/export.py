"""A model's folder as one file for others: the official checkpoint, ONNX, or a torch.export archive.

.pth, .safetensors   all weights under the published names (see `official`)
.onnx                normalised images [B, 3, S, S] to logits [B, classes]; the config is in its metadata
.pt2                 the same graph for torch.export.load; for C++ too, by AOTInductor

The batch of the graphs is free. Both are run on batches of other sizes than they were traced with, and
compared with the model, before they get their name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tagmill.models import onnx_writing
from tagmill.models.onnx_session import open_session
from tagmill.models.ram import official
from tagmill.models.ram.config import METADATA, RamConfig
from tagmill.models.ram.store import Model
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.ram.writing import save_tensors
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

TOLERANCE = 1e-3
"""Largest difference of a logit that an exported graph may have."""

BATCHES = (1, 3)
"""Sizes of the batches that a graph is checked with; it is traced with 2."""

INSIDE = 1 << 30
"""Bytes of weights that an ONNX file may hold itself (its format ends at 2 GB); more lie in PATH.data."""


@dataclass(frozen=True)
class Exported:
    """What was written: tensors of a checkpoint, or the largest difference of a graph's logits."""

    tensors: int | None = None
    difference: float | None = None


def export(model: Model, path: Path) -> Exported:
    """Write a model, in eval mode on the CPU, into a file whose ending says as what.

    Raises ConfigError for another ending, a file that exists, and what cannot be written, there or that way.
    """
    check(path)
    with files.replacing(str(path)) as partial:
        return WRITERS[path.suffix](model, partial)


def check(path: Path) -> None:
    """Raise ConfigError unless a file of this name can be written: its ending is known, and it is new."""
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


def _write_onnx(model: Model, path: Path) -> Exported:
    onnx_writing.require_export()
    said = {METADATA: model.config.model_dump_json()}
    if _bytes(model) > INSIDE:
        program = torch.onnx.export(
            _trace(model), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
        )
        if program is None:
            raise AssertionError("torch.onnx.export gave no program")
        program.model.metadata_props.update(said)
        program.save(path, external_data=True)
    else:
        free = {"images": {0: "batch"}, "logits": {0: "batch"}}
        onnx_writing.write(_Graph(model), path, {"images": _images(model.config, 2)}, ["logits"], free, said)
    session = open_session(path)

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(np.asarray(logits))

    return Exported(difference=_compare(model, run, path))


def _write_pt2(model: Model, path: Path) -> Exported:
    _torch_write(torch.export.save, _trace(model), path)
    return Exported(difference=_compare(model, torch.export.load(path).module(), path))


def _torch_write(save: Callable[[Any, Path], None], content: Any, path: Path) -> None:
    """Let torch write a file. It raises RuntimeError for what the operating system does not let it."""
    try:
        save(content, path)
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[0]) from error


class _Graph(nn.Module):
    """The forward pass with its classes in one piece, and the batch's size never turned into a number.

    The model's own pass takes the classes in chunks, which a graph would hold one after the other, each
    with all of the head's steps.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] to logits [B, classes]."""
        model, batch = self.model, images.shape[0]
        tokens = model.encode(images)
        memories = model.head.remember(tokens)
        if isinstance(model, Tag2Text):
            found = model.head(model.label_embed.expand(batch, -1, -1), memories)
            return (found * model.score_weight).sum(2) + model.score_bias
        vectors = F.relu(model.label_projection(model.describe(tokens, model.labels)))
        return model.score_projection(model.head(vectors.expand(batch, -1, -1), memories)).squeeze(-1)


def _trace(model: Model) -> ExportedProgram:
    """Trace the forward pass with a free batch; without gradients, as it then is at its fastest."""
    with torch.no_grad():
        return torch.export.export(
            _Graph(model).eval(),
            (_images(model.config, 2),),
            dynamic_shapes=({0: Dim("batch", min=1)},),
            strict=False,
        )


def _compare(model: Model, run: Callable[[Tensor], Any], path: Path) -> float:
    """Give the largest difference of logits. Raises ArithmeticError if it is larger than `TOLERANCE`."""
    largest = 0.0
    with torch.no_grad():
        for count in BATCHES:
            images = _images(model.config, count)
            largest = max(largest, float((run(images) - model(images)).abs().max()))
    if not largest <= TOLERANCE:
        raise ArithmeticError(f"{path.name}: its logits differ by {largest:.2g}, more than {TOLERANCE:g}")
    return largest


def _images(config: RamConfig, count: int) -> Tensor:
    """Make images as they are when they are normalised."""
    chance = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, config.image_size, config.image_size, generator=chance)


def _bytes(model: Model) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


WRITERS: dict[str, Callable[[Model, Path], Exported]] = {
    ".pth": _write_pth,
    ".safetensors": _write_safetensors,
    ".onnx": _write_onnx,
    ".pt2": _write_pt2,
}
"""How each format is written, by the file's ending."""
