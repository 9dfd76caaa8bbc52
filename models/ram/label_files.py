"""The file of `tagmill vocab embed`, read without torch, and whether a model takes its label embeddings."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from tagmill.models.base import Floats
from tagmill.models.clip_names import unit
from tagmill.models.ram import config as configs
from tagmill.models.ram.config import RamConfig
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json

TENSOR = "label_embed"

LENGTH_ERROR = 1e-2
"""How far from 1 a row's length may be: half-precision numbers round."""

LEAST_LIKE = 0.3
"""Cosine that texts about one class have at least under one CLIP; under two CLIPs it is about 0."""


@dataclass(frozen=True)
class LabelFile:
    """Embeddings float32 (classes * descriptions, dimension), a class's descriptions together."""

    classes: tuple[str, ...]
    embeddings: Floats
    digest: str
    vocabulary: str

    @property
    def descriptions(self) -> int:
        """Rows of each class."""
        return len(self.embeddings) // len(self.classes)

    @property
    def sha256(self) -> str:
        """Hash classes and numbers."""
        content = json.dumps(self.classes).encode() + self.embeddings.tobytes()
        return hashlib.sha256(content).hexdigest()

    @property
    def by_class(self) -> Floats:
        """Embeddings (classes, descriptions, dimension)."""
        return self.embeddings.reshape(len(self.classes), self.descriptions, -1)


def read(path: Path) -> LabelFile:
    """Read what `labels.save` wrote. Raises ConfigError for anything else, and for rows of another length."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as stored:
            said, embeddings = stored.metadata() or {}, stored.get_tensor(TENSOR).astype(np.float32)
        found = LabelFile(_names(said["classes"]), embeddings, said["digest"], said["vocabulary"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a file of `tagmill vocab embed`: {error}") from error
    if embeddings.ndim != 2 or len(embeddings) % len(found.classes) or not len(embeddings):
        shape = " x ".join(map(str, embeddings.shape))
        raise ConfigError(f"{path}: embeddings of {shape} are not those of {len(found.classes)} classes")
    lengths = np.linalg.norm(embeddings, axis=1)
    (wrong,) = np.nonzero(~(np.abs(lengths - 1) < LENGTH_ERROR))
    if len(wrong):
        name = found.classes[wrong[0] // found.descriptions]
        raise ConfigError(f"{path}: {len(wrong)} rows are zero or not of length 1, the first is of {name}")
    return found


def _names(text: str) -> tuple[str, ...]:
    names = parse_json(text)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are not a list of names")
    return tuple(names)


def relabelled(config: RamConfig, labels: LabelFile, model: Path) -> RamConfig:
    """Give a model's config with the labels' classes; thresholds belong to classes: it has none.

    Raises ConfigError if the labels do not fit the config, which is of `model`.
    """
    if config.kind == "tag2text":
        raise ConfigError("Tag2Text learns its classes: it takes no label embeddings")
    if labels.embeddings.shape[1] != config.dimension:
        raise ConfigError(
            f"the labels have {labels.embeddings.shape[1]} dimensions, {model} has {config.dimension}: take "
            "the CLIP that it was trained with (published ones: ViT-B-16-quickgelu, pretrained openai)"
        )
    changes: dict[str, Any] = {"classes": labels.classes, "descriptions": labels.descriptions}
    changes |= {"thresholds": None, "silent": (), "vocabulary": labels.vocabulary}
    try:
        return RamConfig.model_validate(config.model_dump() | changes)
    except ValidationError as error:
        raise ConfigError(f"the labels do not fit {model}: {configs.explain(error)}") from error


def check_clip(classes: tuple[str, ...], means: Floats, labels: LabelFile, model: Path) -> None:
    """Raise ConfigError if the classes that a model and labels share were embedded by two CLIPs.

    `means` (classes, dimension) are the model's own embeddings, averaged over a class's descriptions. Where
    no class is shared nothing can be told.
    """
    places = {name: at for at, name in enumerate(classes)}
    shared = [(places[name], at) for at, name in enumerate(labels.classes) if name in places]
    if not shared:
        return
    ours, theirs = (np.array(some) for some in zip(*shared, strict=True))
    one, other = unit(means[ours]), unit(labels.by_class[theirs].mean(axis=1))
    if (like := float((one * other).sum(axis=1).mean())) < LEAST_LIKE:
        raise ConfigError(
            f"the labels are of another CLIP than {model}: of the {len(shared):,} classes that both have the "
            f"embeddings are unlike (cosine {like:.2f}); take the CLIP that it was trained with (published "
            "ones: ViT-B-16-quickgelu, pretrained openai)"
        )
