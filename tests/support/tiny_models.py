"""Small checkpoints with random weights, saved in the formats of the real ones, for tests.

Everything is seeded: the same call writes the same weights. The weights are drawn wider than a
library's own start values, which are made for training and leave a fresh model nearly blind to
its inputs: here another image, prompt or size changes the output well over the tolerances.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

FIXED = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
"""Ids of bert-base-uncased that Grounding DINO's code relies on."""

WORDS = ("dog", "hot", "cat", "red", "car", "glass", "oil", "fire", "truck", "a", "photo", "of")
"""Whole words of the small vocabulary; any other word is cut into its letters."""


def word_pieces(words: Sequence[str] = WORDS) -> dict[str, int]:
    """Make a vocabulary of 1,030 pieces: the fixed ids, the words and every letter and digit."""
    letters = [c for c in ascii_lowercase + digits if c not in words]
    pieces = [*words, *letters, *("##" + c for c in ascii_lowercase + digits), "-", "'"]
    vocabulary = [FIXED.get(i, f"[unused{i}]") for i in range(1030)]
    vocabulary[104 : 104 + len(pieces)] = pieces
    return {piece: i for i, piece in enumerate(vocabulary)}


def grounding_dino(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Save a Grounding DINO of about 0.4M weights with its processor (short side 64 pixels)."""
    import torch
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "num_queries": 20,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "num_feature_levels": 3,
        "max_text_len": 64,
        "disable_custom_kernels": True,
    }
    backbone = SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1],
        num_heads=[2, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3"],
    )
    text = BertConfig(
        vocab_size=1030,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    config = GroundingDinoConfig(backbone_config=backbone, text_config=text, **(sizes | changes))
    model = GroundingDinoForObjectDetection(config).eval()
    _spread(model)
    model.save_pretrained(folder)
    GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}),
        BertTokenizer(vocab=word_pieces()),
    ).save_pretrained(folder)
    return folder


def _spread(model: Any) -> None:
    import torch

    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith(("vision_param", "text_param")):
                weights.fill_(0.5)
            elif "bbox_embed" in name or "sampling_offsets.weight" in name:
                weights.normal_(0, 0.1)
                if weights.shape == (4,):
                    weights[2:] += 1  # wide boxes, so that some overlap
            elif weights.ndim > 1:
                weights.add_(torch.randn_like(weights) * 0.05)


def mm_grounding_dino(folder: Path, *, seed: int = 0) -> Path:
    """Save MMDetection's version of Grounding DINO, in the sizes of the other one."""
    import torch
    from transformers import AutoProcessor, MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

    plain = json.loads((grounding_dino(folder, seed=seed) / "config.json").read_text())
    processor = AutoProcessor.from_pretrained(folder)
    known = MMGroundingDinoConfig().to_dict()
    config = {key: value for key, value in plain.items() if key in known and key != "model_type"}
    torch.manual_seed(seed)
    model = MMGroundingDinoForObjectDetection(MMGroundingDinoConfig(**config)).eval()
    _spread(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tag2text(folder: Path, *, seed: int = 4) -> Path:
    """Save a Tag2Text of four classes that writes of dogs, cars and glass, and of nothing else."""
    import torch

    from tagmill.models.ram import store
    from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig, TextConfig
    from tagmill.models.ram.tag2text import Tag2Text

    torch.manual_seed(seed)
    pieces = word_pieces()
    config = RamConfig(
        kind="tag2text",
        image_size=64,
        encoder=EncoderConfig(name="resnet18", arguments={"channels": (8, 8, 8, 8)}, stages=(4,), width=16),
        head=HeadConfig(hidden=24, heads=2, inner=32),
        classes=("dog", "car", "red", "glass"),
        text=TextConfig(heads=2, layers=3, inner=32, tokens=len(pieces) + 2, positions=64),
    )
    model = Tag2Text(config).eval()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.mul_(3)
        model.text.decoder.bias.fill_(-1000)
        model.text.decoder.bias[[pieces[word] for word in ("dog", "car", "glass")]] = 0
    folder.mkdir(parents=True, exist_ok=True)
    vocab = folder.with_name(folder.name + ".vocab.txt")
    vocab.write_text("\n".join(pieces) + "\n")
    store.save(model, folder, vocab=vocab)
    return folder


def open_clip(
    folder: Path, *, seed: int = 0, image_size: int | list[int] = 32, own_tokenizer: bool = False
) -> Path:
    """Save a CLIP of about 0.2M weights as an open_clip folder (`local-dir:FOLDER`).

    `own_tokenizer`: with CLIP's own byte pairs, which are in no file, in place of word pieces.
    """
    import open_clip as library
    import torch
    from safetensors.torch import save_file
    from transformers import BertTokenizer

    torch.manual_seed(seed)
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": image_size, "patch_size": 8, "width": 32, "layers": 2},
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 1030,
            "width": 32,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "local",
            "pool_type": "eos",
            "eos_id": 102,
            "pad_id": 0,
        },
    }
    config["vision_cfg"]["head_width"] = 16
    if own_tokenizer:
        config["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 4, "layers": 1}
    folder.mkdir(parents=True, exist_ok=True)
    model = library.CLIP(**config)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    saved = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(saved))
    BertTokenizer(vocab=word_pieces()).save_pretrained(folder)
    return folder
