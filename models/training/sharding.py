"""Weights that are shared out over the processes, by torch's `fully_shard` (FSDP2).

Each process holds a part of every weight, of its gradient and of its optimizer state. A block of the image
encoder is put together while it computes; all else is while a step computes, for the head passes it piece by
piece. Weights without a dimension cannot be shared out: every process holds them.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from tagmill.models.training.blocks import blocks_of
from tagmill.models.training.objectives import Objective
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import EngineConfig


def is_wanted(engine: EngineConfig, process: Process) -> bool:
    """Tell whether weights are to be shared out; one process has nobody to share with."""
    return engine.parallel == "fsdp" and process.world > 1


def share_out(objective: Objective, process: Process) -> FSDPModule:
    """Share the weights of an objective's model out, and bring what is left onto the device.

    The names of the weights stay; `Objective.scores` works, other methods of the model alone do not.
    """
    mesh = init_device_mesh(process.device.type, (process.world,))
    whole = {value for value in objective.parameters() if not value.ndim}
    for block in blocks_of(objective.model.encoder.trunk).values():
        fully_shard(block, mesh=mesh, ignored_params=whole)
    shared = fully_shard(objective, mesh=mesh, ignored_params=whole)
    register_fsdp_forward_method(objective, "scores")
    objective.to(process.device)
    return shared


def gather(tensors: Mapping[str, Tensor], process: Process) -> dict[str, Tensor]:
    """Put tensors together, one after the other: in main memory of the first process, others get none.

    What is not shared out is given as it is. To be called in all processes.
    """
    found = {}
    for name, value in tensors.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if process.first:
            found[name] = whole.detach().cpu() if isinstance(value, DTensor) else whole
    return found


def part_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Take this process's part of a tensor that belongs to a parameter, if that is shared out."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device, parameter.dtype)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def clip(parameters: Iterable[nn.Parameter], most: float, process: Process) -> Tensor:
    """As `clip_grad_norm_`, for parts; gradients of what is not shared out are averaged first."""
    parts, wholes = [], []
    for value in parameters:
        if isinstance(value.grad, DTensor):
            parts.append(value.grad.to_local())
        elif value.grad is not None:
            wholes.append(process.mean(value.grad))
    nothing = torch.zeros((), device=process.device)
    squares = process.sum(sum((part.square().sum() for part in parts), nothing))
    norm = (squares + sum(whole.square().sum() for whole in wholes)).sqrt()
    for gradient in (*parts, *wholes):
        gradient.mul_((most / (norm + 1e-6)).clamp(max=1))
    return norm
