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


def check(model: Model, engine: EngineConfig, process: Process) -> None:
    """Raise ConfigError if several processes would each take statistics of their own batches."""
    if process.world > 1 and engine.batch_norm != "frozen" and layers_of(model):
        raise ConfigError(
            f"{model.config.encoder.name} has batch normalisation, and each of {process.world} processes "
            "would take its statistics from its own batches alone: set engine.batch_norm: frozen, or take an "
            "encoder without it, such as a Swin"
        )


def freeze(model: Model) -> None:
    """Have the layers normalise by the statistics that they have, whatever mode the model is put in."""
    for layer in layers_of(model):
        layer.eval()
        layer.train = lambda mode=True, layer=layer: layer  # type: ignore[method-assign,misc]
