"""A Grounding DINO of transformers as a folder for `OnnxGroundingDino`.

pairs.onnx       pairs of an image and a text to scores and boxes, see `INPUTS`
tokenizer.json   for the library `tokenizers`
config.json      the canvas and how images are prepared, see `DinoConfig`

The image's sides are those of the canvas, the number of pairs and the texts' length are free. Which tokens
see each other is an input: transformers computes it by operations that ONNX does not have.
"""

import json
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor, nn

from tagmill.models.grounding_dino import read_checkpoint
from tagmill.models.grounding_dino_texts import CLS, DOT, SEP
from tagmill.models.onnx_grounding_dino import CONFIG, GRAPH, TOKENIZER, DinoConfig, attention_blocks
from tagmill.models.onnx_writing import largest_difference, require_export, write
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

TOLERANCE = 1e-3
"""Largest difference of a score, or of a box as a fraction of the image, that the graph may have."""

MASKS = "generate_masks_with_special_tokens_and_transfer_map"
"""What in the code of transformers makes `blocks` and `positions`."""

OTHER = 104
"""A token that is a word, or a part of one."""

INPUTS: dict[str, dict[int, str]] = {
    # float32 (pairs, 3, canvas, canvas)
    "pixels": {0: "pairs"},
    # int64 (pairs, canvas, canvas): 1 where the image is, 0 on what is left of the canvas
    "inside": {0: "pairs"},
    # int64, and beside them 0 for padding
    "ids": {0: "pairs", 1: "tokens"},
    "words": {0: "pairs", 1: "tokens"},
    # bool: which tokens see each other
    "blocks": {0: "pairs", 1: "tokens", 2: "tokens"},
    # int64: of each token in its block
    "positions": {0: "pairs", 1: "tokens"},
}
"""The inputs, and of each the dimensions that may have any size."""

OUTPUTS: dict[str, dict[int, str]] = {"scores": {0: "pairs"}, "boxes": {0: "pairs"}}


def export(folder: Path, out: Path) -> float:
    """Write the folder of a Grounding DINO as the folder `out`; give the largest difference of an answer.

    Raises ConfigError for a model that cannot be written, or that prepares images in another way.
    """
    require_export()
    network, processor = read_checkpoint(folder, torch.float32)
    config = _config(processor.image_processor, network.config.max_text_len, folder)
    with files.replacing(str(out)) as partial:
        partial.mkdir()
        (partial / CONFIG).write_text(json.dumps(config.model_dump(), indent=1) + "\n", encoding="utf-8")
        alone = processor.tokenizer.backend_tokenizer.to_str(pretty=True)
        (partial / TOKENIZER).write_text(alone, encoding="utf-8")
        pairs = _Pairs(network.eval())
        cases = [_example(config, *sizes) for sizes in ((2, 2), (1, 1), (3, 5))]
        write(pairs, partial / GRAPH, cases[0], list(OUTPUTS), INPUTS | OUTPUTS)
        return largest_difference(pairs, partial / GRAPH, cases[1:], TOLERANCE)


class _Pairs(nn.Module):
    """The network, with what it would compute of the texts alone given."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self._code: Any = sys.modules[type(network).__module__]

    def forward(
        self, pixels: Tensor, inside: Tensor, ids: Tensor, words: Tensor, blocks: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        own = getattr(self._code, MASKS)
        setattr(self._code, MASKS, lambda *_, **__: (blocks, positions))
        try:
            found = self.network(
                pixel_values=pixels,
                pixel_mask=inside,
                input_ids=ids,
                attention_mask=words,
                token_type_ids=torch.zeros_like(ids),
            )
        finally:
            setattr(self._code, MASKS, own)
        return found.logits.sigmoid(), found.pred_boxes


def _config(images: Any, text: int, folder: Path) -> DinoConfig:
    plain = (images.do_resize, images.do_rescale, images.do_normalize, images.resample, images.rescale_factor)
    if plain != (True, True, True, PIL.Image.Resampling.BILINEAR, 1 / 255):
        raise ConfigError(f"{folder} prepares images in a way that is not Grounding DINO's: {plain}")
    shortest, longest = images.size["shortest_edge"], images.size["longest_edge"]
    return DinoConfig(
        kind="grounding-dino",
        canvas=longest,
        shortest=shortest,
        longest=longest,
        text=text,
        mean=tuple(images.image_mean),
        std=tuple(images.image_std),
    )


def _example(config: DinoConfig, pairs: int, tags: int) -> dict[str, Tensor]:
    """Make pairs of an image and a text, the last ones padded on both sides."""
    chance = torch.Generator().manual_seed(pairs)
    pixels = torch.randn(pairs, 3, config.canvas, config.canvas, generator=chance)
    inside = torch.ones(pairs, config.canvas, config.canvas, dtype=torch.long)
    inside[-1, config.canvas * 3 // 4 :] = 0
    pixels *= inside[:, None]
    ids = torch.full((pairs, 3 * tags + 2), OTHER)
    ids[:, 0], ids[:, -1], ids[:, 3:-1:3] = CLS, SEP, DOT
    words = torch.ones_like(ids)
    if tags > 1:
        ids[-1, 4], ids[-1, 5:], words[-1, 5:] = SEP, 0, 0
    blocks, positions = attention_blocks(ids.numpy())
    given = {"blocks": torch.from_numpy(blocks), "positions": torch.from_numpy(positions)}
    return {"pixels": pixels, "inside": inside, "ids": ids, "words": words, **given}
