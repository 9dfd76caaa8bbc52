"""One process of a training: its rank and device, and what it exchanges with the other ranks."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from tagmill.models.pretrained import resolve_device


@dataclass(frozen=True)
class Process:
    """One of `world` processes, and the device on which it computes."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Tell whether this is the process that logs and saves."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """Tell whether this is the first process of its machine."""
        return os.environ.get("LOCAL_RANK", "0") == "0"

    def mean(self, values: Tensor) -> Tensor:
        """Average over all processes."""
        if self.world > 1:
            distributed.all_reduce(values)
            values /= self.world
        return values

    def sum(self, values: Tensor) -> Tensor:
        """Add up over all processes."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def all_gather(self, rows: Tensor) -> Tensor:
        """Put the rows [B, ...] of all processes together, by rank: [world * B, ...].

        Gradients come back to who made a row, added up over the processes.
        """
        return rows if self.world == 1 else _AllGather.apply(rows, self.rank, self.world)

    def gather(self, counts: Counter[str]) -> Counter[str]:
        """Add up counts over all processes."""
        if self.world == 1:
            return counts
        found: list[Counter[str]] = [Counter() for _ in range(self.world)]
        distributed.all_gather_object(found, counts)
        return sum(found, Counter())

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            distributed.barrier()


class _AllGather(torch.autograd.Function):
    """All processes' rows; torch's own gather with gradients is deprecated for one that is private."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, world: int) -> Tensor:
        ctx.rank, ctx.world = rank, world
        found = [torch.empty_like(rows) for _ in range(world)]
        distributed.all_gather(found, rows.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        added = gradient.clone()
        distributed.all_reduce(added)
        return added.chunk(ctx.world)[ctx.rank], None, None


@contextmanager
def join_process_group(device: str = "auto") -> Iterator[Process]:
    """Join the process group that torchrun's environment names; without torchrun the process is alone.

    Raises ConfigError if there is no such device.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    where = torch.device(resolve_device(device))
    if where.type == "cuda" and where.index is None:
        where = torch.device(resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}"))
        torch.cuda.set_device(where)
    if world == 1:
        yield Process(where)
        return
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Process(where, rank, world)
    finally:
        distributed.destroy_process_group()
