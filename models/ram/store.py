"""The folder of a RAM model: `config.json` and `model.safetensors`, with a text side also `vocab.txt`."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from tagmill.models.pretrained import require_files
from tagmill.models.ram import config as configs
from tagmill.models.ram.checkpoints import load as load_weights
from tagmill.models.ram.config import NEEDS, VOCAB, WEIGHTS, RamConfig
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.models.ram.tag2text import Tag2Text
from tagmill.models.ram.writing import save_tensors
from tagmill.tag_system.core.errors import ConfigError

Model: TypeAlias = Ram | Tag2Text

KINDS: dict[str, type[Ram] | type[Tag2Text]] = {"ram": Ram, "ram_plus": RamPlus, "tag2text": Tag2Text}


def build(config: RamConfig) -> Model:
    """Make the module that the config describes, its weights not loaded. Raises ConfigError."""
    return KINDS[config.kind](config)


def save(
    model: Model,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    vocab: Path | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the model into the folder, which is made; `dtype` is that of the stored numbers.

    `vocab` is the file with the word pieces of a model that has a text side. `weights` are written instead of
    the model's own, under the same names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        key: tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
        for key, tensor in (model.state_dict() if weights is None else weights).items()
    }
    configs.write(model.config, folder)
    save_tensors(stored, folder / WEIGHTS)
    if vocab is not None and model.config.text is not None:
        shutil.copyfile(vocab, folder / VOCAB)


def load(folder: Path) -> Model:
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


def count(folder: Path) -> int:
    """Count the numbers in a folder's weights, without reading them. Raises ConfigError."""
    require_files(folder, NEEDS)
    try:
        with safe_open(folder / WEIGHTS, "pt") as stored:
            names = stored.keys()
            return sum(math.prod(stored.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read {folder / WEIGHTS}: {error}") from error
