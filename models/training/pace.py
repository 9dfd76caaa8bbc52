"""How fast a training goes, how long it waits for data, and what it asks of the device."""

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tagmill.models.ram.store import Model
from tagmill.models.training.batches import Batch
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import EngineConfig

PEAKS: dict[str, dict[str, float]] = {
    "A100": {"bfloat16": 312, "float32": 19.5},
    "H100 PCIe": {"bfloat16": 756, "float32": 51},
    "H100 80GB HBM3": {"bfloat16": 989, "float32": 67},
    "H200": {"bfloat16": 989, "float32": 67},
    "L4": {"bfloat16": 121, "float32": 30.3},
    "L40S": {"bfloat16": 362, "float32": 91.6},
}
"""Dense TFLOP/s of the data sheets, by how CUDA's name of a device ends; float32 without tensor cores."""

BACKWARD = 2
"""Forward passes that a backward pass is worth: both matrices of each product get a gradient."""


@dataclass(frozen=True)
class Report:
    """How far a training is after a step of `steps`, and how fast: images of all processes a second.

    `figures` are the losses of the step, the norm of its gradient and its learning rate.
    """

    step: int
    steps: int
    epoch: int
    figures: dict[str, float]
    images_per_second: float
    seconds_left: float


class Pace:
    """Measures steps from `start` on, which begins anew with every epoch.

    Args:
        process: This process; images are those of all, waiting and memory are this one's.
        flops: What the model computes for an image, forth and back; None if that is not known.
        peak: FLOP/s of a device, None if that is not known.
    """

    def __init__(self, process: Process, flops: float | None, peak: float | None) -> None:
        self._process, self._flops, self._peak = process, flops, peak
        self.start(0)

    def start(self, position: int) -> None:
        """Begin to measure, where so many samples of the epoch are behind."""
        self._since, self._position = time.monotonic(), position
        self._steps, self._waited = 0, 0.0

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Give the batches, and note how long each was waited for."""
        while True:
            began = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def step(self, position: int) -> dict[str, float]:
        """Note that a step is done: gives the figures of the epoch up to here, as the log names them.

        `steps_per_second`, `images_per_second`; `data_wait`, the share of the time; `peak_memory_gb`, since
        the process began; `mfu`, see docs/training.md, where it can be known.
        """
        self._steps += 1
        seconds = max(time.monotonic() - self._since, 1e-9)
        images = (position - self._position) / seconds
        found = {
            "steps_per_second": self._steps / seconds,
            "images_per_second": images,
            "data_wait": self._waited / seconds,
            "peak_memory_gb": peak_memory(self._process.device) / 1e9,
        }
        if self._flops is not None and self._peak is not None:
            found["mfu"] = self._flops * images / (self._peak * self._process.world)
        return found


def peak_memory(device: torch.device) -> int:
    """Give the most bytes that this process held at once: torch's on a GPU, else all in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def peak_of(engine: EngineConfig, device: torch.device) -> float | None:
    """Give a device's FLOP/s at the training's precision; None if neither recipe nor table has it."""
    if engine.peak_tflops is not None:
        return engine.peak_tflops * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = [peaks for end, peaks in PEAKS.items() if name.endswith(f" {end}") or f" {end}-" in name]
    return found[0][engine.precision] * 1e12 if found else None


@torch.no_grad()
def flops_of(model: Model) -> float:
    """Count what encoder and tagging head compute for an image, forth and back.

    Products of matrices, convolutions and attention of one forward pass, as torch counts them, and twice as
    many for the way back; activations that are computed again do not count.
    """
    whole: Any = model
    device = next(model.parameters()).device
    size, trained = model.config.image_size, model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with counter:
        whole.score(whole.encode(torch.zeros(1, 3, size, size, device=device)))
    model.train(trained)
    return float((1 + BACKWARD) * counter.get_total_flops())
