"""The ONNX file of a RAM, RAM++ or Tag2Text: how it is written, with its classes inside or open."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagmill.models import onnx_writing
from tagmill.models.base import Image
from tagmill.models.onnx_session import open_session
from tagmill.models.ram import graph, int8
from tagmill.models.ram.config import METADATA
from tagmill.models.ram.int8 import Agreement
from tagmill.models.ram.open_set import IMAGES, LABELS, LOGITS, MEANS, pack, takes_labels
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.store import Model

INSIDE = 1 << 30
"""Bytes of weights that an ONNX file may hold itself (its format ends at 2 GB); more lie in PATH.data."""


def write(model: Model, path: Path, *, open_set: bool, halve: bool = True) -> float:
    """Write a model, in eval mode on the CPU, and give the largest difference of its logits.

    `open_set`: the label embeddings [classes, descriptions, dimension] of a RAM or RAM++ become the input
    `labels`. Whoever gives none gets the model's own classes: they are what the input holds by default.
    `halve`: see `onnx_writing.write`.
    """
    onnx_writing.require_export()
    said = {METADATA: model.config.model_dump_json()}
    labels = model.labels.detach() if open_set and isinstance(model, Ram) else None
    if labels is not None:
        said[MEANS] = pack(labels.mean(1).numpy())
    if _bytes(model) > INSIDE:
        _write_large(model, path, labels, said)
    else:
        inputs = {IMAGES: graph.images_of(model.config, 2)}
        free = {IMAGES: {0: "batch"}, LOGITS: {0: "batch"}}
        if labels is not None:
            inputs[LABELS] = graph.labels_of(model.config, 4)
            free[LABELS] = {0: "classes"} | ({1: "descriptions"} if model.config.kind == "ram_plus" else {})
            free[LOGITS] = {0: "batch", 1: "classes"}
        defaults = None if labels is None else {LABELS: labels.numpy()}
        onnx_writing.write(graph.Graph(model), path, inputs, [LOGITS], free, said, defaults, halve=halve)
    return _checked(model, path)


def write_int8(
    model: Model, path: Path, images: Sequence[Image], *, open_set: bool
) -> tuple[float, Agreement]:
    """Write a model with weights of 8 bits; give the float32 file's difference, and how the two agree."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        plain = Path(scratch) / path.name
        difference = write(model, plain, open_set=open_set, halve=False)
        int8.quantise(plain, path)
        if _bytes(model) <= INSIDE:
            for each in (plain, path):
                onnx_writing.store_halves(each, [LABELS])
        sessions = [open_session(plain), open_session(path)]
        return difference, int8.agreement(sessions, [plain, path], model.config, images)


def _write_large(model: Model, path: Path, labels: Tensor | None, said: dict[str, str]) -> None:
    names = [IMAGES] if labels is None else [IMAGES, LABELS]
    traced = graph.trace(model, None if labels is None else graph.labels_of(model.config, 4))
    program = torch.onnx.export(traced, input_names=names, output_names=[LOGITS], dynamo=True, verbose=False)
    if program is None:
        raise AssertionError("torch.onnx.export gave no program")
    if labels is not None:
        import onnx_ir

        (value,) = (one for one in program.model.graph.inputs if one.name == LABELS)
        value.const_value = onnx_ir.tensor(labels.numpy(), name=LABELS)
        program.model.graph.register_initializer(value)
    program.model.metadata_props.update(said)
    program.save(path, external_data=True)


def _checked(model: Model, path: Path) -> float:
    session = open_session(path)

    def run(images: Tensor, labels: Tensor | None = None) -> Tensor:
        fed: dict[str, Any] = {IMAGES: images.numpy()}
        if labels is not None:
            fed[LABELS] = labels.numpy()
        (logits,) = session.run(None, fed)
        return torch.from_numpy(np.asarray(logits))

    largest = graph.compare(model, run, path)
    if isinstance(model, Ram) and takes_labels(session):
        largest = max(largest, graph.compare_open(model, run, path))
    return largest


def _bytes(model: Model) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
