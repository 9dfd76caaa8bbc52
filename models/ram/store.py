"""The folder of a RAM model: `config.json` and `model.safetensors`, written and read whole."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tagmill.models.pretrained import require_files
from tagmill.models.ram import config as configs
from tagmill.models.ram.checkpoints import load as load_weights
from tagmill.models.ram.config import NEEDS, WEIGHTS, RamConfig
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.tag_system.errors import ConfigError


def build(config: RamConfig) -> RamPlus:
    """Make the module that the config describes, its weights not loaded. Raises ConfigError."""
    return RamPlus(config)


def save(model: RamPlus, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the model into the folder, which is made; `dtype` is that of the stored numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        key: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for key, tensor in model.state_dict().items()
    }
    configs.write(model.config, folder)
    save_file(weights, folder / WEIGHTS)


def load(folder: Path) -> RamPlus:
    """Read a model, in float32 and eval mode, whatever format its numbers are stored in.

    Raises ConfigError if a file is missing, or broken, or does not fit the config.
    """
    require_files(folder, NEEDS)
    model = build(configs.read(folder))
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read {folder / WEIGHTS}: {error}") from error
    weights = {key: value.float() if value.is_floating_point() else value for key, value in stored.items()}
    try:
        load_weights(weights, model)
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from error
    return model.eval()
