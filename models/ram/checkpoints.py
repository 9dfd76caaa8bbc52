"""The published checkpoints: their keys, brought to the names of our modules.

A checkpoint is a pickled dict with the weights under "model". Every key is either translated or
dropped for a stated reason; one that is neither is an error, so that nothing is lost in silence.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tagmill.models.ram import position_tables
from tagmill.tag_system.core.errors import ConfigError

TABLE = "relative_position_bias_table"

DROPPED = {
    r"relative_position_index$": "follows from the window size",
    r"attn_mask$": "follows from the image size",
    r"position_ids$": "counts from 0",
}
"""Patterns of keys that are left out, and why."""

RENAMED = (
    (
        r"visual_encoder\.layers\.(\d+)\.downsample\.",
        lambda m: f"encoder.trunk.layers.{int(m[1]) + 1}.downsample.",
    ),
    (r"visual_encoder\.", "encoder.trunk."),
    (r"image_proj\.", "image_projection."),
    (r"wordvec_proj\.", "label_projection."),
    (r"fc\.W$", "score_weight"),
    (r"fc\.b$", "score_bias"),
    (r"fc\.", "score_projection."),
    (r"label_embed(\.weight)?$", "label_embed"),
    (r"reweight_scale$", "reweight_scale"),
    (r"(tagging_head|vision_multi)\.encoder\.layer\.", "head.layers."),
    (r"tag_encoder\.encoder\.layer\.", "text.tag_encoder.layers."),
    (r"tag_encoder\.embeddings\.", "text.tag_encoder.embedding."),
    (r"text_decoder\.bert\.encoder\.layer\.", "text.decoder.layers."),
    (r"text_decoder\.bert\.embeddings\.", "text.decoder.embedding."),
    (r"text_decoder\.cls\.predictions\.transform\.dense\.", "text.decoder.transform."),
    (r"text_decoder\.cls\.predictions\.transform\.LayerNorm\.", "text.decoder.norm."),
    (r"text_decoder\.cls\.predictions\.decoder\.weight$", "text.decoder.embedding.words.weight"),
    (r"text_decoder\.cls\.predictions\.(decoder\.)?bias$", "text.decoder.bias"),
)
"""How keys begin, and what stands there in our modules; the first that fits counts."""

IN_LAYER = (
    (r"(head\.layers\.\d+\.)crossattention\.", r"\1attention."),
    (r"(text\..*\d+\.)crossattention\.", r"\1cross."),
    (r"attention\.self\.", "attention."),
    (r"cross\.self\.", "cross."),
    (r"(attention|cross)\.output\.dense\.", r"\1.output."),
    (r"(attention|cross)\.output\.LayerNorm\.", r"\1.norm."),
    (r"intermediate\.dense\.", "feed_forward.inner."),
    (r"(\d)\.output\.dense\.", r"\1.feed_forward.output."),
    (r"(\d)\.output\.LayerNorm\.", r"\1.feed_forward.norm."),
    (r"embedding\.word_embeddings\.", "embedding.words."),
    (r"embedding\.position_embeddings\.", "embedding.positions."),
    (r"embedding\.LayerNorm\.", "embedding.norm."),
)
"""The rest of the keys of BERT, applied one after the other."""

TIED = re.compile(r"tag_encoder\.(encoder\.layer\.\d+\.(?:crossattention|intermediate|output)\..*)")
"""Keys of the tag encoder that can be those of the tagging head once more."""


@dataclass(frozen=True)
class Translated:
    """Weights under our names, and the keys that were dropped with the reason of each."""

    weights: dict[str, Tensor]
    dropped: dict[str, str]


def read(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's weights under their published names, from .pth or .safetensors.

    Nothing pickled but tensors and plain data is read. Raises ConfigError if that fails.
    """
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise ConfigError(f"cannot read the checkpoint {path}: {what}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files of torch before 1.6 are not archives, and cannot be mapped into memory.
        archive = zipfile.is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"cannot read the checkpoint {path}: it is not a checkpoint of tensors and plain data alone; "
            "pickled code is never run, so save the weights alone, as .safetensors"
        ) from error
    except Exception as error:  # torch raises anything for bytes that are not a checkpoint
        first, *_ = str(error).split("\n")
        raise ConfigError(f"cannot read the checkpoint {path}: {first or type(error).__name__}") from error
    weights = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        raise ConfigError(f"{path} is not a checkpoint of RAM: it has no weights under 'model'")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ConfigError(
                f"{path} is not a checkpoint of RAM: {key!r} under 'model' is not a tensor with a name"
            )
    return dict(weights)


def translate(published: Mapping[str, Tensor], leave_out: Sequence[str] = ()) -> Translated:
    """Bring published keys to our names; a key that repeats another's tensor is dropped.

    Keys that begin with one of `leave_out` are dropped too.

    Raises ConfigError for a key that nothing is known about, and for two tensors that should be one.
    """
    weights: dict[str, Tensor] = {}
    dropped: dict[str, str] = {}
    for key, tensor in published.items():
        reason = next((why for pattern, why in DROPPED.items() if re.search(pattern, key)), None)
        if any(start and key.startswith(start) for start in leave_out):
            reason = "as you said"
        ours = None if reason else _rename(_untied(key, published))
        if ours in weights and not torch.equal(weights[ours], tensor):
            raise ConfigError(f"the checkpoint has two tensors for {ours}; {key} differs from the other")
        if ours is None or ours in weights:
            dropped[key] = reason or f"the same as {ours}"
        else:
            weights[ours] = tensor
    return Translated(weights, dropped)


def load(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Load weights under our names into the model, whose tables of positions may be of another window.

    Raises ConfigError unless the weights are exactly those of the model, in name and shape.
    """
    state = model.state_dict()
    fitted = dict(weights)
    for key, tensor in weights.items():
        if key.endswith(TABLE) and key in state and state[key].shape != tensor.shape:
            window = (round(len(state[key]) ** 0.5) + 1) // 2
            try:
                fitted[key] = position_tables.resize(tensor, window)
            except ValueError as error:
                raise ConfigError(f"the weights do not fit the model: {key}: {error}") from error
    try:
        model.load_state_dict(fitted, strict=True)
    except RuntimeError as error:
        raise ConfigError(f"the weights do not fit the model: {_brief(error)}") from error


def _untied(key: str, published: Mapping[str, Tensor]) -> str:
    """Name the tagging head's key that the tag encoder's key repeats, if there is one."""
    if found := TIED.fullmatch(key):
        heads = (f"{name}.{found[1]}" for name in ("tagging_head", "vision_multi"))
        return next((head for head in heads if head in published), key)
    return key


def _rename(key: str) -> str:
    for pattern, ours in RENAMED:
        name, count = re.subn("^" + pattern, ours, key, count=1)
        if not count:
            continue
        if name.startswith(("head.", "text.")):
            for inner, replacement in IN_LAYER:
                name = re.sub(inner, replacement, name)
        return name
    raise ConfigError(
        f"unknown key {key!r} in the checkpoint: a RAM model does not have it; to skip keys of other parts, "
        "give the start of their names by leave_out (--leave-out)"
    )


def _brief(error: RuntimeError) -> str:
    """Cut torch's list of keys to its first lines."""
    lines = [line.strip() for line in str(error).splitlines()[1:4]]
    return " ".join(lines)[:500]
