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
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Tag, Vocabulary, digest_of

SWIN = "swin_large_patch4_window12_384"
"""The encoder's name in timm; all its sizes are read from the weights."""

TAG2TEXT_CLASSES = 3429
TAG2TEXT_SILENT = (127, 2961, 3351, 3265, 3338, 3355, 3359)
"""Classes (quarter, back, two .. five, one) that the published Tag2Text keeps from its captions."""

TAG2TEXT_THRESHOLD, TAG2TEXT_PEOPLE = 0.68, {2701: 0.7, 2828: 0.7, 1167: 0.7}
"""Its thresholds: person, man and woman have their own."""


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint: the config, and the dropped keys with the reason of each.

    `guessed`: the image size stands nowhere in the checkpoint, and is what one window a last map makes.
    """

    config: RamConfig
    dropped: Mapping[str, str]
    guessed: bool


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
    silent: Sequence[int] | None = None,
    vocabulary: Vocabulary | None = None,
    image_size: int | None = None,
    window: int | None = None,
    head_heads: int = 4,
    text_heads: int = 12,
    leave_out: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
) -> Converted:
    """Read a checkpoint of RAM, RAM++ or Tag2Text and write it as a folder that must not exist yet.

    `classes` and `thresholds` are in the order of the scores (the published `ram_tag_list.txt` and
    `ram_tag_list_threshold.txt`). `vocab` is BERT's `vocab.txt`; without it a RAM loses its text side,
    and a Tag2Text is refused. `silent` are indices of classes that do not guide captions.
    `vocabulary` is what the classes come from; the config has its digest, by default that of a vocabulary
    of their names alone.

    `image_size` and `window`, the side of attention's windows, are the checkpoint's own by default: the
    size is read from its masks, and where it has none, the last map is taken for one window. Tables of
    positions are resized to another window. The numbers of heads are not in a checkpoint; the defaults
    are the published ones. `leave_out` are beginnings of keys that are not read, such as those of heads that
    were trained with the model and that it does not have here.

    Raises ConfigError if the checkpoint is not one of these, does not fit the classes or the sizes, has a
    class without a label embedding or numbers that are not finite, and if a class is not in the vocabulary.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already: name a new folder")
    published = checkpoints.read(checkpoint)
    translated = checkpoints.translate(published, leave_out)
    weights, dropped = dict(translated.weights), dict(translated.dropped)
    if vocab is None and kind_of(weights) == "tag2text":
        raise ConfigError("Tag2Text needs vocab, BERT's vocab.txt, to read tags and write captions")
    if vocab is None:
        text = [key for key in weights if key.startswith("text.")]
        dropped |= dict.fromkeys(text, "there is no vocab for the text side")
        for key in text:
            del weights[key]
    known_size = image_size or _masked_size(published)
    config = infer(
        weights,
        classes,
        thresholds,
        silent=silent,
        image_size=known_size,
        window=window,
        head_heads=head_heads,
        text_heads=text_heads,
    )
    if vocabulary is not None:
        _check_vocabulary(classes, vocabulary)
    named = [Tag(place, name, "object") for place, name in enumerate(classes)]
    config = config.model_copy(
        update={"vocabulary": digest_of(named) if vocabulary is None else vocabulary.digest}
    )
    _check_labels(weights["label_embed"], config)
    if vocab is not None and config.text is not None:
        count = WordPieces(vocab).count
        if count != config.text.tokens:
            raise ConfigError(f"{vocab} makes {count} word pieces, the checkpoint has {config.text.tokens}")
    _check_finite(weights)
    model = store.build(config)
    checkpoints.load(weights, model)
    with files.replacing(str(out)) as partial:
        store.save(model, partial, dtype=dtype, vocab=vocab)
    return Converted(config, dropped, known_size is None)


def infer(
    weights: Mapping[str, Tensor],
    classes: Sequence[str],
    thresholds: Sequence[float] | None = None,
    *,
    silent: Sequence[int] | None = None,
    image_size: int | None = None,
    window: int | None = None,
    head_heads: int = 4,
    text_heads: int = 12,
) -> RamConfig:
    """Read the config from translated weights; see `convert`. Raises ConfigError if it cannot be."""
    kind = kind_of(weights)
    try:
        inner, hidden = weights["head.layers.0.feed_forward.inner.weight"].shape
        rows = len(weights["label_embed"])
        encoder, size = _encoder(weights, image_size, window)
        settings: dict[str, Any] = {
            "kind": kind,
            "image_size": size,
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
        raise ConfigError(f"the checkpoint is not a RAM model: it lacks {error}") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"the checkpoint's tensors do not fit a RAM model: {error}") from error
    if not classes or rows % len(classes) or (kind != "ram_plus" and rows != len(classes)):
        raise ConfigError(f"{len(classes)} classes do not fit {rows} label embeddings of a {kind}")
    if thresholds is not None and len(thresholds) != len(classes):
        raise ConfigError(f"{len(thresholds)} thresholds for {len(classes)} classes")
    settings["silent"] = silent or ()
    if kind == "tag2text" and rows == TAG2TEXT_CLASSES:
        settings["silent"] = TAG2TEXT_SILENT if silent is None else silent
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


def _encoder(
    weights: Mapping[str, Tensor], image_size: int | None, window: int | None
) -> tuple[EncoderConfig, int]:
    stages = range(max(1, _count(weights, "encoder.trunk.layers")))
    tables = [weights[f"encoder.trunk.layers.{i}.blocks.0.attn.{TABLE}"] for i in stages]
    sides = [(round(len(table) ** 0.5) + 1) // 2 for table in tables]
    dimension, _, _, patch = weights["encoder.trunk.patch_embed.proj.weight"].shape
    inner = len(weights["encoder.trunk.layers.0.blocks.0.mlp.fc1.bias"])
    window = window or sides[0]
    arguments: dict[str, Any] = {
        "window_size": window,
        "embed_dim": dimension,
        "depths": tuple(_count(weights, f"encoder.trunk.layers.{i}.blocks") for i in stages),
        "num_heads": tuple(table.shape[1] for table in tables),
    }
    usual = {"patch_size": (patch, 4), "mlp_ratio": (inner / dimension, 4)}
    arguments |= {name: value for name, (value, default) in usual.items() if value != default}
    width = len(weights["encoder.trunk.norm.bias"])
    size = image_size or patch * 2 ** stages[-1] * sides[-1]
    _check_windows(size, patch, len(stages), window)
    return EncoderConfig(name=SWIN, arguments=arguments, width=width), size


def _check_labels(embeddings: Tensor, config: RamConfig) -> None:
    """The official training leaves classes of a new list at zero: no image tells them from each other."""
    zero = (embeddings == 0).all(1).nonzero().flatten().tolist()
    if zero and config.kind != "tag2text":
        name = config.classes[zero[0] // config.descriptions]
        raise ConfigError(
            f"{len(zero)} of {len(embeddings)} label embeddings are zero, the first is of {name}: the "
            "checkpoint was trained without those of its classes, so its scores mean nothing; make them by "
            "`tagmill vocab embed` and train it again"
        )


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights with NaN or infinite numbers: one of them makes every score NaN."""
    bad = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise ConfigError(
            f"the checkpoint is damaged: {len(bad)} tensors have NaN or infinite numbers ({bad[0]})"
        )


def _check_vocabulary(classes: Sequence[str], vocabulary: Vocabulary) -> None:
    strange = [name for name in classes if vocabulary.resolve(name) is None]
    if strange:
        raise ConfigError(
            f"{len(strange)} of {len(classes)} classes are not in the vocabulary, the first is {strange[0]}: "
            "give the vocabulary that they come from, or leave it out"
        )


def _check_windows(size: int, patch: int, stages: int, window: int) -> None:
    """The official Swin cuts every map into whole windows, or takes a smaller map for one window."""
    maps = [size / (patch * 2**stage) for stage in range(stages)]
    if any(side % min(side, window) or side % 1 for side in maps):
        raise ConfigError(
            f"windows of {window} do not fit an image of {size}, whose maps have the sides "
            f"{', '.join(f'{side:g}' for side in maps)}: choose another image size or window"
        )


def _masked_size(published: Mapping[str, Tensor]) -> int | None:
    """Read the image's size from a mask of shifted windows [windows, places, places], which cover a map."""
    patches = published.get("visual_encoder.patch_embed.proj.weight")
    if patches is None or patches.ndim != 4:
        return None
    for key, mask in published.items():
        found = re.fullmatch(r"visual_encoder\.layers\.(\d+)\.blocks\.\d+\.attn_mask", key)
        if found and mask.ndim == 3:
            return round((mask.shape[0] * mask.shape[1]) ** 0.5) * patches.shape[-1] * 2 ** int(found[1])
    return None


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
