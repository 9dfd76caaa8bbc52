"""Frozen label embeddings of a training: those that the start model has, and CLIP's for new classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tagmill.models.open_clip import OpenClip
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.label_files import LEAST_LIKE
from tagmill.models.ram.labels import embed_descriptions, embed_names
from tagmill.models.training.recipe import LabelsConfig
from tagmill.tag_system import descriptions
from tagmill.tag_system.core.errors import ConfigError

PLAIN = "a photo of a {}."

SHARED = 32
"""Classes on which the CLIP of new embeddings is compared with that of the old."""

LEAST_LENGTH = 1e-3
"""Under this an embedding counts as zero; they are made of length 1."""


def extend(
    known: Mapping[str, Tensor], labels: LabelsConfig, config: RamConfig, clip: OpenClip | None
) -> Tensor:
    """Give the embeddings of all classes, [classes * descriptions, dimension]: the known ones, else CLIP's.

    `known` are [descriptions, dimension] by name; one that is zero or not finite counts as unknown, so that
    none is ever learned. Raises ConfigError if new classes need a CLIP and there is none, or if it
    is another than that of the known classes, or does not fit the model.
    """
    rows = {name: vectors for name, vectors in known.items() if _lives(vectors)}
    new = [name for name in config.classes if name not in rows]
    if new:
        if clip is None:
            raise ConfigError(
                f"{len(new)} classes have no label embedding yet ({', '.join(new[:3])}): "
                "name by clip the CLIP that makes them"
            )
        shared = [name for name in config.classes if name in rows][:SHARED]
        _check_clip({name: rows[name] for name in shared}, clip)
        rows |= dict(zip(new, _embed(labels, new, config, clip), strict=True))
    return torch.cat([rows[name] for name in config.classes])


def _embed(labels: LabelsConfig, names: Sequence[str], config: RamConfig, clip: OpenClip) -> Tensor:
    """Embed classes: [classes, descriptions, dimension], for RAM the mean of a class's sentences."""
    if labels.descriptions is not None:
        texts = descriptions.read(Path(labels.descriptions), names)
    elif labels.templates is not None or config.kind == "ram_plus":
        texts = [[template.format(name) for template in labels.templates or (PLAIN,)] for name in names]
    else:
        return _fitting(embed_names(names, clip).unsqueeze(1), config)
    vectors = embed_descriptions(texts, clip).unflatten(0, (len(names), -1))
    if config.kind == "ram":
        vectors = F.normalize(vectors.mean(1, keepdim=True), dim=-1)
    return _fitting(vectors, config)


def _fitting(vectors: Tensor, config: RamConfig) -> Tensor:
    _, count, dimension = vectors.shape
    if count != config.descriptions:
        raise ConfigError(
            f"labels give {count} sentences a class, the model has {config.descriptions} descriptions: "
            "give as many templates or descriptions"
        )
    if dimension != config.dimension:
        raise ConfigError(
            f"clip gives {dimension} numbers a text, the model's dimension is {config.dimension}"
        )
    return vectors


def _check_clip(known: Mapping[str, Tensor], clip: OpenClip) -> None:
    if not known:
        return
    ours = torch.from_numpy(clip.sentences([PLAIN.format(name) for name in known]))
    theirs = torch.stack([vectors.float().mean(0) for vectors in known.values()])
    if ours.shape[1] != theirs.shape[1] or F.cosine_similarity(ours, theirs).mean() < LEAST_LIKE:
        raise ConfigError(
            "clip is not the CLIP of the start model's classes, so embeddings of new classes would not fit: "
            "name that CLIP (of the published models: ViT-B-16-quickgelu, pretrained openai)"
        )


def _lives(vectors: Tensor) -> bool:
    return bool((vectors.float().norm(dim=1) > LEAST_LENGTH).all() and vectors.isfinite().all())
