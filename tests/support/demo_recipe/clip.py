"""The demo's CLIP: open_clip's own model and loss, trained on crops of things and on whole scenes.

Every thing comes once in a batch, so that the plain contrastive loss meets almost no false negatives.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from demo_recipe import checkpoints
from demo_recipe.captions import plural
from demo_recipe.scenes import SceneSet
from demo_recipe.words import SIZE as WORDS
from demo_recipe.words import tokenizer

CROP = 64
CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": CROP, "layers": [1, 1, 1, 1], "width": 16},
    "text_cfg": {
        "context_length": 24,
        "vocab_size": WORDS,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "hf_tokenizer_name": "local",
        "pool_type": "eos",
        "eos_id": 102,
        "pad_id": 0,
    },
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEMPLATES = ("{}", "a {}", "this is a {}", "here is a {}", "we see a {}", "there is a {}")


@dataclass(frozen=True)
class ClipRecipe:
    """How long and how fast; a batch is a crop of every thing and `scenes` whole scenes."""

    steps: int = 1_600
    scenes: int = 32
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    seed: int = 0


def train(
    data: SceneSet, folder: Path, recipe: ClipRecipe, log: Callable[[dict[str, Any]], None], work: Path
) -> None:
    """Train CLIP and write its folder in open_clip's format, float16; go on from `work` if it is there."""
    import open_clip

    torch.manual_seed(recipe.seed)
    model = open_clip.CLIP(**CONFIG).to(memory_format=torch.channels_last).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.08
    )
    loss_of = open_clip.ClipLoss()
    rows = _rows_of_things(data)
    read = tokenizer()
    state = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start = checkpoints.restore(work, **state)
    for step in range(start + 1, recipe.steps + 1):
        rng = np.random.default_rng((recipe.seed, step))
        crops, texts = _batch(data, rows, recipe.scenes, rng)
        tokens = _tokens(read, texts)
        with torch.autocast("cpu", torch.bfloat16):
            images, words, scale = model(normalise(crops), tokens)
        loss = loss_of(images.float(), words.float(), scale.float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(50))
        if step % 100 == 0:
            log({"model": "clip", "step": step, "loss": loss.item()})
            checkpoints.keep(work, step, **state)
    save(model, folder)


def save(model: Any, folder: Path) -> None:
    """Write a folder that open_clip reads by `local-dir:`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer().save_pretrained(folder)


def normalise(crops: NDArray[np.uint8]) -> Tensor:
    """Turn crops (n, CROP, CROP, 3) into normalised (n, 3, CROP, CROP) floats."""
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float().div_(255)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def _rows_of_things(data: SceneSet) -> list[list[tuple[int, int]]]:
    """List where each thing is: (scene, which of its boxes)."""
    found: list[list[tuple[int, int]]] = [[] for _ in data.names]
    for row, labels in enumerate(data.labels):
        for place, label in enumerate(labels):
            found[label].append((row, place))
    return found


def _batch(
    data: SceneSet, rows: list[list[tuple[int, int]]], scenes: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[str]]:
    crops, texts = [], []
    for label, places in enumerate(rows):
        row, place = places[rng.integers(len(places))]
        crops.append(cut(data.images[row], data.boxes[row][place], rng))
        name = data.names[label]
        name = plural(name) if rng.random() < 0.1 else name
        texts.append(TEMPLATES[rng.integers(len(TEMPLATES))].format(name))
    for row in rng.integers(len(data.images), size=scenes):
        crops.append(fit(np.asarray(data.images[row])))
        texts.append(data.captions[row])
    return np.stack(crops), texts


def cut(image: NDArray[np.uint8], box: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cut a box, a little wider or narrower as a detector's boxes are, and flip it or not."""
    width, height = box[2] - box[0], box[3] - box[1]
    shift = rng.uniform(-0.05, 0.2, 4) * (width, height, width, height)
    left, top = np.maximum(0, box[:2] - shift[:2]).astype(int)
    right, bottom = np.ceil(box[2:] + shift[2:]).astype(int)
    crop = image[top : max(bottom, top + 4), left : max(right, left + 4)]
    return fit(crop[:, ::-1] if rng.random() < 0.5 else crop)


def fit(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring a crop to CROP x CROP: the long side is resized, the rest filled with the mean colour."""
    picture = PIL.Image.fromarray(crop)
    scale = CROP / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = PIL.Image.new("RGB", (CROP, CROP), tuple(round(255 * value) for value in MEAN))
    canvas.paste(
        picture.resize(size, PIL.Image.Resampling.BICUBIC), ((CROP - size[0]) // 2, (CROP - size[1]) // 2)
    )
    return np.asarray(canvas)


def _tokens(read: Any, texts: list[str]) -> Tensor:
    length = CONFIG["text_cfg"]["context_length"]
    found: Tensor = read(
        texts, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
    )["input_ids"]
    return found


def evaluate(folder: Path, data: SceneSet) -> dict[str, float]:
    """Name the true boxes of scenes by the saved model: share right in the first guess, and in five."""
    from tagmill.models.open_clip import OpenClip

    model = OpenClip(f"local-dir:{folder}", template="a {}")
    model.load()
    texts = np.stack(model.text(data.names))
    crops, labels = [], []
    for row, boxes in enumerate(data.boxes):
        for (x1, y1, x2, y2), label in zip(boxes.astype(int), data.labels[row], strict=True):
            crops.append(model.prepare(np.asarray(data.images[row, y1:y2, x1:x2])))
            labels.append(label)
    vectors = np.concatenate([model.predict(crops[at : at + 256]) for at in range(0, len(crops), 256)])
    order = np.argsort(-vectors @ texts.T, axis=1)[:, :5]
    hit = order == np.array(labels)[:, None]
    return {"crops": len(crops), "top1": float(hit[:, 0].mean()), "top5": float(hit.any(axis=1).mean())}
