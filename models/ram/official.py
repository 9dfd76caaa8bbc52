"""Translates a model's weights to the published names of the official code; the inverse of `checkpoints`.

Every key of a freshly built official model is there, so that it loads strictly: tensors that the official
models tie stand under each of their names, and so do the buffers that follow from the sizes.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from tagmill.models.ram import checkpoints
from tagmill.models.ram.store import Model
from tagmill.tag_system.core.errors import ConfigError

BEGINNINGS = (
    (r"encoder\.trunk\.layers\.(\d+)\.downsample\.", r"visual_encoder.layers.\1.downsample."),
    (r"encoder\.trunk\.", "visual_encoder."),
    (r"image_projection\.", "image_proj."),
    (r"label_projection\.", "wordvec_proj."),
    (r"score_weight$", "fc.W"),
    (r"score_bias$", "fc.b"),
    (r"score_projection\.", "fc."),
    (r"head\.layers\.", "tagging_head.encoder.layer."),
    (r"text\.tag_encoder\.layers\.", "tag_encoder.encoder.layer."),
    (r"text\.tag_encoder\.embedding\.", "tag_encoder.embeddings."),
    (r"text\.decoder\.layers\.", "text_decoder.bert.encoder.layer."),
    (r"text\.decoder\.embedding\.", "text_decoder.bert.embeddings."),
    (r"text\.decoder\.transform\.", "text_decoder.cls.predictions.transform.dense."),
    (r"text\.decoder\.norm\.", "text_decoder.cls.predictions.transform.LayerNorm."),
    (r"text\.decoder\.bias$", "text_decoder.cls.predictions.bias"),
)
"""How our keys begin, and the published ones; the first that fits counts."""

IN_LAYER = (
    (r"(head\.layers\.\d+\.)attention\.", r"\1cross."),
    (r"\.(attention|cross)\.(query|key|value)\.", r".\1.self.\2."),
    (r"\.(attention|cross)\.output\.", r".\1.output.dense."),
    (r"\.(attention|cross)\.norm\.", r".\1.output.LayerNorm."),
    (r"\.cross\.", ".crossattention."),
    (r"\.feed_forward\.inner\.", ".intermediate.dense."),
    (r"\.feed_forward\.output\.", ".output.dense."),
    (r"\.feed_forward\.norm\.", ".output.LayerNorm."),
    (r"\.embedding\.words\.", ".embedding.word_embeddings."),
    (r"\.embedding\.positions\.", ".embedding.position_embeddings."),
    (r"\.embedding\.norm\.", ".embedding.LayerNorm."),
)
"""The rest of BERT's keys, applied one after the other."""

TIED = (
    (r"tagging_head\.(encoder\.layer\.\d+\.(?:crossattention|intermediate|output)\.)", r"tag_encoder.\1"),
    (r"text_decoder\.bert\.embeddings\.word_embeddings\.", "text_decoder.cls.predictions.decoder."),
    (r"text_decoder\.cls\.predictions\.bias$", "text_decoder.cls.predictions.decoder.bias"),
)
"""Published keys of a model with a text side, and where the same tensor stands once more."""

BUFFERS = re.compile(r"encoder\.trunk\..*(relative_position_index|attn_mask)$")

POSITIONS = ("tag_encoder.embeddings.", "text_decoder.bert.embeddings.")


def weights(model: Model) -> dict[str, Tensor]:
    """Give the tensors of an official checkpoint, without what is around them.

    Raises ConfigError for an encoder that the official code does not have.
    """
    config = model.config
    if "swin" not in config.encoder.name or config.encoder.stages:
        raise ConfigError(
            f"the official code knows Swin encoders only, not {config.encoder.name}: export to .onnx or .pt2"
        )
    published: dict[str, Tensor] = {}
    for ours, tensor in tensors(model):
        published |= dict.fromkeys(names(ours, config.kind, text=config.text is not None), tensor)
    if config.text is not None:
        places = torch.arange(config.text.positions).unsqueeze(0)
        published |= {f"{part}position_ids": places.clone() for part in POSITIONS}
    _check(published, model)
    return published


def names(ours: str, kind: str, *, text: bool) -> list[str]:
    """Give the published names of one of our keys, tied ones too if there is a text side."""
    if ours == "label_embed":
        return ["label_embed.weight" if kind == "tag2text" else ours]
    name = ours
    if ours.startswith(("head.", "text.")):
        for inner, replacement in IN_LAYER:
            name = re.sub(inner, replacement, name)
    name = next((re.sub("^" + b, to, name) for b, to in BEGINNINGS if re.match(b, name)), name)
    # timm has the step down at the start of a stage, the official Swin at the end of the one before.
    name = re.sub(r"(?<=^visual_encoder\.layers\.)\d+(?=\.downsample)", lambda m: str(int(m[0]) - 1), name)
    tied = [re.sub("^" + pattern, other, name) for pattern, other in TIED if text and re.match(pattern, name)]
    return [name, *tied]


def tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors that an official checkpoint has by the model's own names, buffers among them."""
    yield from _published(model).items()
    for name, buffer in model.named_buffers():
        if BUFFERS.search(name):
            yield name, buffer


def _published(model: Model) -> dict[str, Tensor]:
    """Leave out the alignment branch, for which there are no published names."""
    return {key: value for key, value in model.state_dict().items() if not key.startswith("alignment.")}


def _check(published: dict[str, Tensor], model: Model) -> None:
    """Make sure that reading the published names gives the model's own again."""
    back = checkpoints.translate(published).weights
    ours = _published(model)
    if back.keys() != ours.keys() or not all(torch.equal(back[key], ours[key]) for key in ours):
        raise AssertionError("the published names do not lead back to the model")
