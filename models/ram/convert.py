"""From a published checkpoint to a folder of our format, and what a folder holds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from tagmill.models.ram import checkpoints, store
from tagmill.models.ram import config as configs
from tagmill.models.ram.checkpoints import TABLE
from tagmill.models.ram.config import WEIGHTS, EncoderConfig, RamConfig
from tagmill.models.ram.word_pieces import WordPieces
from tagmill.tag_system.errors import ConfigError

SWIN = "swin_large_patch4_window12_384"
"""The encoder's name in timm; all its sizes are read from the weights."""

PIXELS_PER_WINDOW = 32
"""The last map of the published encoders is one window, and a place of it 32 pixels."""

TAG2TEXT_CLASSES = 3429
TAG2TEXT_SILENT = (127, 2961, 3351, 3265, 3338, 3355, 3359)
"""Classes (quarter, back, two .. five, one) that the published Tag2Text keeps from its captions."""

TAG2TEXT_THRESHOLD, TAG2TEXT_PEOPLE = 0.68, {2701: 0.7, 2828: 0.7, 1167: 0.7}
"""Its thresholds: person, man and woman have their own."""


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint: the config, and the dropped keys with the reason of each."""

    config: RamConfig
    dropped: Mapping[str, str]


@dataclass(frozen=True)
class Info:
    """What a model's folder holds; sizes in numbers and in bytes."""

    config: RamConfig
    parameters: int
    bytes: int


def convert(
    checkpoint: Path,
    out: Path,
    *,
    classes: Sequence[str],
    thresholds: Sequence[float] | None = None,
    vocab: Path | None = None,
    head_heads: int = 4,
    text_heads: int = 12,
    dtype: torch.dtype = torch.float32,
) -> Converted:
    """Read a checkpoint of RAM, RAM++ or Tag2Text and write it as a folder that must not exist yet.

    `classes` and `thresholds` are in the order of the scores (the published `ram_tag_list.txt` and
    `ram_tag_list_threshold.txt`). `vocab` is BERT's `vocab.txt`; without it a RAM loses its text side,
    and a Tag2Text is refused. The numbers of heads are not in a checkpoint; the defaults are the
    published ones.

    Raises ConfigError if the checkpoint is none of these, or does not fit the classes.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already: name a new folder")
    translated = checkpoints.translate(checkpoints.read(checkpoint))
    weights, dropped = dict(translated.weights), dict(translated.dropped)
    if vocab is None and kind_of(weights) == "tag2text":
        raise ConfigError("Tag2Text needs vocab, BERT's vocab.txt, to read tags and write captions")
    if vocab is None:
        text = [key for key in weights if key.startswith("text.")]
        dropped |= dict.fromkeys(text, "there is no vocab for the text side")
        for key in text:
            del weights[key]
    config = infer(weights, classes, thresholds, head_heads=head_heads, text_heads=text_heads)
    if vocab is not None and config.text is not None:
        count = WordPieces(vocab).count
        if count != config.text.tokens:
            raise ConfigError(f"{vocab} makes {count} word pieces, the checkpoint has {config.text.tokens}")
    model = store.build(config)
    checkpoints.load(weights, model)
    store.save(model, out, dtype=dtype, vocab=vocab)
    return Converted(config, dropped)


def infer(
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    thresholds: Sequence[float] | None = None,
    *,
    head_heads: int = 4,
    text_heads: int = 12,
) -> RamConfig:
    """Read the config from translated weights. Raises ConfigError if something essential is missing."""
    kind = kind_of(weights)
    try:
        inner, hidden = weights["head.layers.0.feed_forward.inner.weight"].shape
        rows = len(weights["label_embed"])
        encoder, image_size = _encoder(weights)
        settings: dict[str, Any] = {
            "kind": kind,
            "image_size": image_size,
            "encoder": encoder,
            "head": {
                "hidden": hidden,
                "heads": head_heads,
                "layers": _count(weights, "head.layers"),
                "inner": inner,
            },
            "text": _text(weights, inner, text_heads),
        }
        if kind != "tag2text":
            settings["dimension"] = len(weights["image_projection.bias"])
    except KeyError as error:
        raise ConfigError(f"the checkpoint is not one of a RAM model: it has no {error}") from error
    if not classes or rows % len(classes) or (kind != "ram_plus" and rows != len(classes)):
        raise ConfigError(f"{len(classes)} classes do not fit {rows} label embeddings of a {kind}")
    if kind == "tag2text" and rows == TAG2TEXT_CLASSES:
        settings["silent"] = TAG2TEXT_SILENT
        thresholds = thresholds or [TAG2TEXT_PEOPLE.get(i, TAG2TEXT_THRESHOLD) for i in range(rows)]
    try:
        return RamConfig(
            classes=classes, thresholds=thresholds, descriptions=rows // len(classes), **settings
        )
    except ValidationError as error:
        raise ConfigError(f"the checkpoint's sizes do not fit: {configs.explain(error)}") from error


def info(folder: Path) -> Info:
    """Say what a model's folder holds, without reading its weights. Raises ConfigError."""
    return Info(configs.read(folder), store.count(folder), (folder / WEIGHTS).stat().st_size)


def kind_of(weights: Mapping[str, Tensor]) -> Literal["ram", "ram_plus", "tag2text"]:
    """Tell the kind of a model by the names of its weights."""
    if "reweight_scale" in weights:
        return "ram_plus"
    return "tag2text" if "score_weight" in weights else "ram"


def _encoder(weights: Mapping[str, Tensor]) -> tuple[EncoderConfig, int]:
    stages = range(max(1, _count(weights, "encoder.trunk.layers")))
    tables = [weights[f"encoder.trunk.layers.{i}.blocks.0.attn.{TABLE}"] for i in stages]
    window = (round(len(tables[0]) ** 0.5) + 1) // 2
    arguments = {
        "window_size": window,
        "embed_dim": len(weights["encoder.trunk.patch_embed.proj.bias"]),
        "depths": tuple(_count(weights, f"encoder.trunk.layers.{i}.blocks") for i in stages),
        "num_heads": tuple(table.shape[1] for table in tables),
    }
    width = len(weights["encoder.trunk.norm.bias"])
    return EncoderConfig(name=SWIN, arguments=arguments, width=width), window * PIXELS_PER_WINDOW


def _text(weights: Mapping[str, Tensor], inner: int, heads: int) -> dict[str, int] | None:
    if "text.decoder.bias" not in weights:
        return None
    return {
        "heads": heads,
        "layers": _count(weights, "text.decoder.layers"),
        "inner": inner,
        "tokens": len(weights["text.decoder.bias"]),
        "positions": len(weights["text.decoder.embedding.positions.weight"]),
    }


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Count the layers called PREFIX.0, PREFIX.1, ..."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({found[1] for key in weights if (found := pattern.match(key))})
