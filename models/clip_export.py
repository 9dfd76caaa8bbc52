"""A CLIP of open_clip as a folder for `OnnxClip`: both sides as ONNX files, the tokenizer, and a config.

images.onnx      normalised images [B, 3, H, W] to features [B, D]
texts.onnx       tokens [B, context] to features [B, D]
tokenizer.json   for the library `tokenizers`, with the model's context as its length
config.json      how images are prepared, see `ClipConfig`
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmill.models.clip_images import ClipConfig
from tagmill.models.onnx_clip import CONFIG, IMAGES, TEXTS, TOKENIZER, tokens
from tagmill.models.onnx_session import open_tokenizer
from tagmill.models.onnx_writing import largest_difference, require_export, write
from tagmill.models.open_clip import LOCAL
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary

TOLERANCE = 1e-3
"""Largest difference of a number of a feature that a graph may have."""

BATCHES = (1, 3)
"""Sizes of the batches that a graph is checked with; it is traced with 2."""

LONG = "a photo of a very long sentence that no text encoder reads to its end, " * 12


def export(folder: Path, out: Path) -> float:
    """Write the folder of an open_clip model as the folder `out`; give the largest difference of a feature.

    Raises ConfigError for a model that cannot be written, or whose tokenizer another library cannot replace.
    """
    require_export()
    import open_clip

    try:
        model = open_clip.create_model(f"{LOCAL}{folder}", require_pretrained=True).eval()
        tokenizer = open_clip.get_tokenizer(f"{LOCAL}{folder}")
    except Exception as error:  # of open_clip or of torch
        raise ConfigError(f"cannot load CLIP model {folder}: {error}") from error
    config = _config(model.visual.preprocess_cfg, tokenizer)
    with files.replacing(str(out)) as partial:
        partial.mkdir()
        (partial / CONFIG).write_text(json.dumps(config.model_dump(), indent=1) + "\n", encoding="utf-8")
        (partial / TOKENIZER).write_text(_standalone(tokenizer), encoding="utf-8")
        _check_tokens(tokenizer, partial / TOKENIZER, config, str(folder))
        images = [{"images": _pixels(config, count)} for count in (2, *BATCHES)]
        ids = [{"ids": tokenizer(["a dog", "a red fire truck", LONG][:count])} for count in (2, *BATCHES)]
        return max(
            _side(_Images(model), partial / IMAGES, images), _side(_Texts(model), partial / TEXTS, ids)
        )


def _side(side: nn.Module, path: Path, cases: Sequence[dict[str, Tensor]]) -> float:
    """Write one side, and compare it with itself on other batches."""
    (name,) = cases[0]
    free = {name: {0: "batch"}, "features": {0: "batch"}}
    write(side, path, cases[0], ["features"], free)
    return largest_difference(side, path, cases[1:], TOLERANCE)


class _Images(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.encode_image(images)


class _Texts(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.encode_text(ids)


def _pixels(config: ClipConfig, count: int) -> Tensor:
    chance = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, config.height, config.width, generator=chance)


def _config(own: dict[str, Any], tokenizer: Any) -> ClipConfig:
    size = own["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return ClipConfig(
        kind="clip",
        height=height,
        width=width,
        mean=own["mean"],
        std=own["std"],
        interpolation=own["interpolation"],
        resize=own["resize_mode"],
        fill=own["fill_color"],
        lower=getattr(tokenizer.clean_fn, "__name__", "") == "_clean_lower",
    )


def _standalone(tokenizer: Any) -> str:
    """Give the tokenizer.json that cuts texts as a tokenizer of open_clip does."""
    inner: Any = getattr(tokenizer, "tokenizer", None)
    if inner is None and hasattr(tokenizer, "bpe_ranks"):
        made, pad, name = _byte_pairs(tokenizer), 0, "!"
    elif hasattr(inner, "backend_tokenizer"):
        import tokenizers

        made = tokenizers.Tokenizer.from_str(inner.backend_tokenizer.to_str())
        pad, name = inner.pad_token_id, inner.pad_token
    else:
        raise ConfigError(f"a {type(tokenizer).__name__} of open_clip cannot be written without open_clip")
    made.enable_truncation(tokenizer.context_length)
    made.enable_padding(length=tokenizer.context_length, pad_id=pad, pad_token=name)
    return made.to_str(pretty=True)


def _byte_pairs(tokenizer: Any) -> Any:
    """Make CLIP's own tokenizer, byte pairs whose words end in </w>, of the tables in open_clip's."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    start, end = tokenizer.sot_token_id, tokenizer.eot_token_id
    made = Tokenizer(
        models.BPE(
            vocab=tokenizer.encoder,
            merges=[pair for pair in tokenizer.bpe_ranks if len(pair) == 2],
            end_of_word_suffix="</w>",
        )
    )
    words = Regex(r"(?i)'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    names = {number: name for name, number in tokenizer.encoder.items()}
    made.post_processor = processors.TemplateProcessing(
        single=f"{names[start]} $A {names[end]}",
        special_tokens=[(names[start], start), (names[end], end)],
    )
    return made


def _check_tokens(tokenizer: Any, path: Path, config: ClipConfig, said: str) -> None:
    """Raise ConfigError unless every name of the vocabulary, and a text too long, is cut as before."""
    names = (name for tag in Vocabulary.load() for name in (tag.name, *tag.aliases))
    texts = [*(f"A photo of a {name}." for name in names), LONG]
    alone = tokens(open_tokenizer(path), texts, lower=config.lower)
    wrong = (alone != tokenizer(texts).numpy()).any(axis=1)
    if wrong.any():
        first = texts[int(np.argmax(wrong))]
        raise ConfigError(
            f"{said}: without open_clip its tokenizer cuts {int(wrong.sum()):,} of {len(texts):,} texts "
            f"otherwise, {first!r} first"
        )
