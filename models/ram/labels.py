"""Label embeddings of a tagger's classes, from texts by CLIP, and a tagger made for them.

RAM knows a class by one vector: sentences about its name, embedded, and their mean scaled to length 1. RAM++
has a vector for each of a class's descriptions. As the official code's `build_openset_label_embedding`.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tagmill.models.base import Floats
from tagmill.models.open_clip import OpenClip
from tagmill.models.pretrained import require_files
from tagmill.models.ram import config as configs
from tagmill.models.ram import label_files
from tagmill.models.ram.config import NEEDS, VOCAB, WEIGHTS, RamConfig
from tagmill.models.ram.writing import save_tensors
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.descriptions import TEMPLATES, sentences

CLASSES_AT_ONCE = 64


@dataclass(frozen=True)
class Labels:
    """Embeddings [classes * descriptions, dimension], a class's descriptions in a row, and what made them.

    `digest` is that of the texts and of the CLIP, `vocabulary` that of the list of tags.
    """

    classes: tuple[str, ...]
    embeddings: Tensor
    digest: str
    vocabulary: str

    @property
    def descriptions(self) -> int:
        """Rows of each class."""
        return len(self.embeddings) // len(self.classes)


def digest_of(clip: OpenClip, texts: Iterable[Sequence[str]], *, averaged: bool) -> str:
    """Hash all that decides label embeddings: the texts of each class, and who embeds them."""
    content = json.dumps([clip.fingerprint(), averaged, [list(some) for some in texts]])
    return hashlib.sha256(content.encode()).hexdigest()


def embed_names(names: Sequence[str], clip: OpenClip) -> Tensor:
    """Embed each name by its sentences: [names, dimension], rows of length 1."""
    rows: list[Floats] = []
    for start in range(0, len(names), CLASSES_AT_ONCE):
        part = names[start : start + CLASSES_AT_ONCE]
        vectors = clip.sentences([text for name in part for text in sentences(name)])
        means = vectors.reshape(len(part), len(TEMPLATES), -1).mean(axis=1)
        rows.append(means / np.linalg.norm(means, axis=1, keepdims=True))
    return torch.from_numpy(np.concatenate(rows))


def embed_descriptions(described: Sequence[Sequence[str]], clip: OpenClip) -> Tensor:
    """Embed each description of each class: [classes * descriptions, dimension], rows of length 1."""
    return torch.from_numpy(clip.sentences([text for texts in described for text in texts]))


def save(labels: Labels, path: Path) -> None:
    """Write label embeddings into a safetensors file. Raises ConfigError if it cannot be written."""
    said = {"classes": json.dumps(labels.classes), "digest": labels.digest, "vocabulary": labels.vocabulary}
    with files.replacing(str(path)) as partial:
        save_tensors({label_files.TENSOR: labels.embeddings}, partial, said)


def load(path: Path) -> Labels:
    """Read what `save` wrote. Raises ConfigError for anything else, and for rows of another length."""
    found = label_files.read(path)
    return Labels(found.classes, torch.from_numpy(found.embeddings), found.digest, found.vocabulary)


def relabel(folder: Path, labels: Labels, out: Path) -> RamConfig:
    """Copy a RAM or RAM++ to `out`, which must not exist yet, with other classes.

    Thresholds belong to classes: the copy has none. Raises ConfigError if the labels do not fit the model,
    which must be whole, and if the copy cannot be written.
    """
    require_files(folder, NEEDS)
    config = configs.read(folder)
    if out.exists():
        raise ConfigError(f"{out} exists already: name a new folder")
    given = label_files.LabelFile(
        labels.classes, labels.embeddings.float().numpy(), labels.digest, labels.vocabulary
    )
    changed = label_files.relabelled(config, given, folder)
    try:
        weights = load_file(folder / WEIGHTS)
        weights["label_embed"] = labels.embeddings.to(weights["label_embed"].dtype)
    except (OSError, SafetensorError, KeyError) as error:
        raise ConfigError(f"{folder / WEIGHTS} is not a RAM model: {error}") from error
    with files.replacing(str(out)) as partial:
        partial.mkdir()
        save_tensors(weights, partial / WEIGHTS)
        configs.write(changed, partial)
        if (folder / VOCAB).exists():
            shutil.copyfile(folder / VOCAB, partial / VOCAB)
    return changed
