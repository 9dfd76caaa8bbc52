"""Batch normalisation in a training: its statistics are those of one process's batch, or they are frozen.

In training such a layer normalises by the batch that a process holds. So 2 processes of 8 images train
another model than 1 of 16, and each process gathers statistics of its own, of which a validation would take
one. Frozen, it normalises by the statistics that the model came with, and both go; its scale and shift learn
all the same.
"""

from torch import nn

from tagmill.models.ram.store import Model
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import EngineConfig
from tagmill.tag_system.core.errors import ConfigError

LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """List the layers of batch normalisation."""
    return [module for module in model.modules() if isinstance(module, LAYERS)]


def moving(model: nn.Module, engine: EngineConfig) -> list[nn.Module]:
    """List the layers whose statistics move: nothing froze them, nor what they scale and shift by."""
    layers = [] if engine.batch_norm == "frozen" else layers_of(model)
    return [layer for layer in layers if _learns(layer)]


def check(model: Model, engine: EngineConfig, process: Process) -> None:
    """Raise ConfigError if several processes would each take statistics of their own batches."""
    if process.world > 1 and moving(model, engine):
        raise ConfigError(
            f"{model.config.encoder.name} has batch normalisation, and each of {process.world} processes "
            "would take its statistics from its own batches alone: set engine.batch_norm: frozen, or take an "
            "encoder without it, such as a Swin"
        )


def freeze(model: Model, engine: EngineConfig) -> None:
    """Have layers that are not `moving` normalise by the statistics that they have, in whatever mode."""
    left = moving(model, engine)
    for layer in layers_of(model):
        if layer not in left:
            layer.eval()
            layer.train = lambda mode=True, layer=layer: layer  # type: ignore[method-assign,misc]


def _learns(layer: nn.Module) -> bool:
    own = [value.requires_grad for value in layer.parameters()]
    return any(own) or not own
