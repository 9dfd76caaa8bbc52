"""The small ResNet under the demo's tagger and detector, pretrained to name the thing in a window.

Windows keep the scale of the scenes, so that what is learned transfers. From scenes alone, with a loss on
tags, the same net learns next to nothing in the same time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from demo_recipe.scenes import SceneSet
from demo_recipe.world import SIZE
from tagmill.models.ram.writing import save_tensors
from tagmill.tag_system.core import files

WINDOW = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's statistics, by which all models of the demo but CLIP normalise."""

TIMM_NAME = "resnet18"
TIMM_ARGUMENTS: dict[str, Any] = {"layers": [1, 2, 2, 1], "channels": [32, 64, 128, 256]}
HF_ARGUMENTS: dict[str, Any] = {
    "embedding_size": 64,
    "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 2, 2, 1],
    "layer_type": "basic",
}
"""The same net in the words of timm and of transformers."""


@dataclass(frozen=True)
class BackboneRecipe:
    """How the windows are learned: in cycles of steps and their highest learning rate, from which it falls to
    nothing; the classifier on top starts anew with each.
    """

    cycles: tuple[tuple[int, float], ...] = ((2_500, 2e-3), (3_500, 1.5e-3))
    batch: int = 96
    weight_decay: float = 0.05
    seed: int = 0


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 pictures (n, height, width, 3) into normalised (n, 3, height, width) floats."""
    pixels = images.permute(0, 3, 1, 2).float().div_(255)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def build() -> nn.Module:
    """Make the net with fresh weights, in timm's form and without a classifier."""
    import timm

    net: nn.Module = timm.create_model(TIMM_NAME, pretrained=False, num_classes=0, **TIMM_ARGUMENTS)
    return net


def train(
    data: SceneSet, path: Path, recipe: BackboneRecipe, log: Callable[[dict[str, Any]], None]
) -> dict[str, Tensor]:
    """Pretrain the net on windows; its weights, in timm's names, are kept in `path`, read if there."""
    if path.exists():
        return load_file(path)
    torch.manual_seed(recipe.seed)
    net = build().to(memory_format=torch.channels_last)
    for number, (steps, rate) in enumerate(recipe.cycles):
        kept = path.with_suffix(f".{number}")
        if kept.exists():
            net.load_state_dict(load_file(kept))
        else:
            _cycle(net, data, recipe, number, steps, rate, log)
            with files.replacing(str(kept)) as partial:
                save_tensors(net.state_dict(), partial)
    kept.replace(path)
    return load_file(path)


def _cycle(
    net: nn.Module,
    data: SceneSet,
    recipe: BackboneRecipe,
    number: int,
    steps: int,
    rate: float,
    log: Callable[[dict[str, Any]], None],
) -> None:
    head = nn.Linear(256, len(data.names) + 1)
    optimizer = torch.optim.AdamW([*net.parameters(), *head.parameters()], weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng((recipe.seed, number))
    right = 0.0
    for step in range(1, steps + 1):
        windows, labels = _windows(data, recipe.batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            scores = head(net(normalise(windows)))
        loss = functional.cross_entropy(scores.float(), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right += 0.02 * ((scores.argmax(1) == labels).float().mean().item() - right)
        if step % 250 == 0:
            place = {"model": "backbone", "cycle": number, "step": step}
            log({**place, "loss": loss.item(), "window_accuracy": right})


def _windows(data: SceneSet, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut windows around things, the thing not quite in the middle; one in ten shows none of them."""
    windows = np.empty((count, WINDOW, WINDOW, 3), dtype=np.uint8)
    labels = np.full(count, len(data.names), dtype=np.int64)
    for index, row in enumerate(rng.integers(len(data.images), size=count)):
        boxes = data.boxes[row]
        if len(boxes) and rng.random() > 0.1:
            chosen = rng.integers(len(boxes))
            labels[index] = data.labels[row][chosen]
            centre = (boxes[chosen, :2] + boxes[chosen, 2:]) / 2 + rng.uniform(-10, 10, 2)
            x, y = np.clip(centre - WINDOW / 2, 0, SIZE - WINDOW).astype(int)
        else:
            x, y = rng.integers(0, SIZE - WINDOW, 2)
            middles = (boxes[:, :2] + boxes[:, 2:]) / 2 - (x, y)
            inside = np.flatnonzero(((middles > 8) & (middles < WINDOW - 8)).all(axis=1))
            labels[index] = data.labels[row][inside[0]] if len(inside) else len(data.names)
        window = data.images[row, y : y + WINDOW, x : x + WINDOW]
        windows[index] = window[:, ::-1] if rng.random() < 0.5 else window
    return torch.from_numpy(windows), torch.from_numpy(labels)


def to_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights from timm's ResNet to the ResNetBackbone of transformers."""
    parts = {"conv1": "layer.0.convolution", "bn1": "layer.0.normalization"}
    parts |= {"conv2": "layer.1.convolution", "bn2": "layer.1.normalization"}
    parts |= {"downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization"}
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("layer"):
            stage, block, rest = name.split(".", 2)
            part = next(part for part in parts if rest.startswith(part))
            place = f"encoder.stages.{int(stage[5:]) - 1}.layers.{block}"
            renamed[f"{place}.{parts[part]}{rest.removeprefix(part)}"] = tensor
        else:
            part = "convolution" if name.startswith("conv1") else "normalization"
            renamed[f"embedder.embedder.{part}.{name.split('.', 1)[1]}"] = tensor
    return renamed
