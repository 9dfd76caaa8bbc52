"""The demo's tagger: RAM++ with a small ResNet in the place of Swin, trained on the true tags of scenes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo_recipe import backbone, checkpoints
from demo_recipe.scenes import SceneSet
from demo_recipe.things import names
from demo_recipe.world import SIZE
from tagmill.models.ram import store
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig
from tagmill.models.ram.losses import asymmetric_loss

DESCRIPTIONS = ("a {}", "this is a {}", "here is a {}", "we see a {}", "there is a {}")
"""Of each class; a large model has texts by a language model here."""


@dataclass(frozen=True)
class TaggerRecipe:
    """How long and how fast; of a batch, `crops` are single things, as the engine asks about regions."""

    steps: int = 1_250
    batch: int = 64
    crops: int = 12
    learning_rate: float = 1e-3
    backbone_factor: float = 0.3
    weight_decay: float = 0.02
    gamma_negative: float = 2.0
    seed: int = 0


def config() -> RamConfig:
    """Give the sizes of the model."""
    encoder = EncoderConfig(
        name=backbone.TIMM_NAME, arguments=backbone.TIMM_ARGUMENTS, stages=(3, 4), width=128
    )
    return RamConfig(
        image_size=SIZE,
        encoder=encoder,
        dimension=64,
        head=HeadConfig(hidden=128, heads=4, layers=2, inner=256, dropout=0.0),
        classes=names(),
        descriptions=len(DESCRIPTIONS),
    )


def label_embeddings(clip: Path) -> Tensor:
    """Embed every description of every class by the demo's CLIP: (classes * descriptions, 64)."""
    from tagmill.models.open_clip import OpenClip

    model = OpenClip(f"local-dir:{clip}", template="{}")
    model.load()
    texts = [description.format(name) for name in names() for description in DESCRIPTIONS]
    return torch.from_numpy(np.stack(model.text(texts)))


def train(
    data: SceneSet,
    trunk: dict[str, Tensor],
    clip: Path,
    folder: Path,
    recipe: TaggerRecipe,
    log: Callable[[dict[str, Any]], None],
    work: Path,
) -> None:
    """Train the tagger and write its folder, float16; go on from `work` if it is there."""
    torch.manual_seed(recipe.seed)
    model: Any = store.build(config())
    model.set_labels(label_embeddings(clip))
    model.encoder.trunk.load_state_dict(trunk)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer, schedule = _optimizer(model, recipe)
    targets = torch.from_numpy(data.targets())
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start = checkpoints.restore(work, **state)
    for step in range(start + 1, recipe.steps + 1):
        loss = _loss(model, data, targets, recipe, np.random.default_rng((recipe.seed, step)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            log({"model": "tagger", "step": step, "loss": loss.item()})
            checkpoints.keep(work, step, **state)
    store.save(model.eval(), folder, dtype=torch.float16)


def _optimizer(model: Any, recipe: TaggerRecipe) -> tuple[Any, Any]:
    trunk = list(model.encoder.trunk.parameters())
    known = {id(parameter) for parameter in trunk}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    slow = recipe.learning_rate * recipe.backbone_factor
    groups = [{"params": trunk, "lr": slow}, {"params": others, "lr": recipe.learning_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [slow, recipe.learning_rate], total_steps=recipe.steps, pct_start=0.1
    )
    return optimizer, schedule


def _loss(
    model: Any, data: SceneSet, targets: Tensor, recipe: TaggerRecipe, rng: np.random.Generator
) -> Tensor:
    """Asymmetric loss a picture: over all classes of scenes, and over the things of crops."""
    rows = np.sort(rng.integers(len(data.images), size=recipe.batch - recipe.crops))
    pictures = [np.asarray(data.images[row]) for row in rows]
    crops = [_crop(data, row, rng) for row in rng.integers(len(data.images), size=recipe.crops)]
    pictures = [p[:, ::-1] if rng.random() < 0.5 else p for p in pictures + [crop for crop, _ in crops]]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(backbone.normalise(torch.from_numpy(np.stack(pictures)))).float()
    whole = logits[: len(rows)], targets[rows].float()
    inside = torch.from_numpy(np.stack([found for _, found in crops])).float()
    parts = logits[len(rows) :, : len(data.names)], inside
    # No shift of easy negatives (clip 0): it would squeeze low scores together, and low scores are evidence.
    losses = [asymmetric_loss(*pair, gamma_negative=recipe.gamma_negative, clip=0) for pair in (whole, parts)]
    return (losses[0] + losses[1]) / recipe.batch


def _crop(data: SceneSet, row: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut a thing out of a scene, widened as the engine does it; say which things lie mostly inside."""
    boxes = data.boxes[row]
    found = np.zeros(len(data.names), dtype=bool)
    if not len(boxes):
        return np.asarray(data.images[row]), found
    x1, y1, x2, y2 = boxes[rng.integers(len(boxes))]
    wide, high = (x2 - x1) * rng.uniform(0.02, 0.2), (y2 - y1) * rng.uniform(0.02, 0.2)
    area = np.array([max(0, x1 - wide), max(0, y1 - high), min(SIZE, x2 + wide), min(SIZE, y2 + high)])
    shared = np.minimum(boxes[:, 2:], area[2:]) - np.maximum(boxes[:, :2], area[:2])
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    found[data.labels[row][np.maximum(shared, 0).prod(axis=1) > 0.6 * sizes]] = True
    left, top, right, bottom = area.round().astype(int)
    picture = PIL.Image.fromarray(data.images[row, top:bottom, left:right])
    return np.asarray(picture.resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR)), found


def evaluate(folder: Path, data: SceneSet) -> dict[str, float]:
    """Measure the saved tagger on scenes: mean average precision by kind, and P / R of things at 0.5."""
    from sklearn.metrics import average_precision_score

    from tagmill.models.ram.tagger import RamTagger

    model = RamTagger(str(folder))
    model.load()
    parts = [data.images[at : at + 100] for at in range(0, len(data.images), 100)]
    scores = np.concatenate([model.predict([model.prepare(image) for image in part]) for part in parts])
    targets = data.targets()
    kinds = {"object": slice(0, len(data.names)), "scene": slice(len(data.names), len(data.names) + 8)}
    kinds["attribute"] = slice(len(data.names) + 8, None)
    found = {
        f"map_{kind}": float(average_precision_score(targets[:, part], scores[:, part], average="macro"))
        for kind, part in kinds.items()
    }
    said, true = scores[:, : len(data.names)] > 0.5, targets[:, : len(data.names)]
    right = float((said & true).sum())
    return found | {"precision": right / max(1.0, said.sum()), "recall": right / true.sum()}
