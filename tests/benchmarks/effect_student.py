"""The trainings of `engine_effect.py`: a small RAM++ on a frozen trunk whose maps were computed once.

All but the trunk is trained from random weights: projections, the head, the weighting of descriptions. Order
of samples, loss, schedule and metrics are the trainer's own.
"""

import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from effect_data import RARE, TAGGER, THINGS, Labels, batches, true_labels
from numpy.typing import NDArray
from torch import Tensor, nn

from tagmill.models.ram import store
from tagmill.models.ram.store import Model
from tagmill.models.training.batches import Batch
from tagmill.models.training.metrics import Metrics, measure, summarise
from tagmill.models.training.objectives import Objective
from tagmill.models.training.order import DatasetSizes, Order
from tagmill.models.training.recipe import LossConfig
from tagmill.models.training.schedule import ScheduleConfig, learning_rate
from tagmill.models.training.scores import ScoreWriter
from tagmill.models.training.views import PlainView
from tagmill.tag_system.shard_contract import Split

SHAPES = ((8, 8, 128), (4, 4, 256))
"""The trunk's two maps of a scene, channels last."""

SIZES = [height * width * channels for height, width, channels in SHAPES]
BATCH = 32
LOSSES = LossConfig(terms=("tagging",), gamma_negative=2.0, clip=0.0, reference_batch=1)
SCHEDULE = ScheduleConfig(learning_rate=1e-3, decay="cosine", every="step", warmup_steps=50, floor=0.0)
DECAY, CLIP_NORM = 0.02, 5.0

Maps = NDArray[np.float16]


class Trunk(nn.Module):
    """Stands for the frozen trunk: gives the maps [B, sum(SIZES)] of images the form that they had."""

    output_fmt = "NHWC"

    def forward(self, maps: Tensor) -> list[Tensor]:
        """Cut the maps apart."""
        parts = maps.split(SIZES, 1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, SHAPES, strict=True)]


def write_maps(folder: Path, split: Split, path: Path) -> None:
    """Compute the trunk's maps of a dataset's images and their mirror images: [N, 2, sum(SIZES)], by key."""
    model: Any = store.load(TAGGER)
    read = batches(folder, split, model.config, "stored", PlainView(model.config))
    keys: list[str] = []
    found: list[Maps] = []
    while some := list(islice(read, BATCH)):
        keys += [batch.ids[0][1] for batch in some]
        found.append(_maps(model.encoder.trunk, torch.cat([batch.images for batch in some])))
    order = np.argsort(keys)
    aside = path.with_suffix(".writing.npz")
    np.savez(aside, keys=np.array(keys)[order], maps=np.concatenate(found)[order])
    aside.rename(path)


@torch.inference_mode()
def _maps(trunk: Any, images: Tensor) -> Maps:
    """Compute the maps of images [B, 3, S, S] and of their mirror images: [B, 2, sum(SIZES)]."""
    ways = [
        torch.cat([found.permute(0, 2, 3, 1).flatten(1) for found in trunk(way)], 1)
        for way in (images, images.flip(3))
    ]
    maps: Maps = torch.stack(ways, 1).half().numpy()
    return maps


def read_maps(path: Path) -> tuple[NDArray[np.str_], Maps]:
    """Read keys and maps."""
    with np.load(path) as found:
        return found["keys"], found["maps"]


def train(maps: Maps, labels: Labels, steps: int, seed: int) -> Model:
    """Train a student; start, order of images and mirroring follow from the seed alone."""
    torch.manual_seed(seed)
    model = _fresh()
    model.train()
    objective = Objective(model, LOSSES, ("tagging",))
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=DECAY)
    order, epochs = Order([DatasetSizes((len(maps),))], seed), -(-steps * BATCH // len(maps))
    stream = np.concatenate([order.epoch(epoch).numbers for epoch in range(epochs)])
    mirrored = np.random.default_rng(seed).integers(2, size=len(stream))
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(SCHEDULE, step, step / steps, 1)
        loss = objective(_batch(maps[stream[rows], mirrored[rows]], labels, stream[rows]))["total"]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
    return model.eval()


def _fresh() -> Model:
    """Build the demo's tagger with random weights behind its trunk, and its label embeddings."""
    demo: Any = store.load(TAGGER)
    model: Any = store.build(demo.config)
    model.set_labels(demo.label_embed.data)
    model.encoder.trunk = Trunk()
    student: Model = model
    return student


def _batch(maps: Maps, labels: Labels, rows: NDArray[np.int64]) -> Batch:
    targets, known = (torch.from_numpy(bits[rows]) for bits in (labels.targets, labels.known))
    count = len(rows)
    return Batch(
        images=torch.from_numpy(maps).float(),
        targets=targets.float(),
        known=known.float(),
        mentioned=torch.zeros_like(targets),
        features=torch.empty(count, 0),
        valid=torch.ones(count, dtype=torch.bool),
        captions=("",) * count,
        ids=tuple(("engine", str(row)) for row in rows),
        skipped=(),
        unmapped=Counter(),
    )


def save(model: Any, folder: Path) -> None:
    """Write a student as a tagger: with the trunk whose maps it learned from."""
    demo: Any = store.load(TAGGER)
    cached, model.encoder.trunk = model.encoder.trunk, demo.encoder.trunk
    store.save(model, folder)
    model.encoder.trunk = cached


def test(model: Any, maps: Path, truth: Path) -> Metrics:
    """Measure a student on the scenes of the test range."""
    keys, found = read_maps(maps)
    labels, names = true_labels(keys, truth).targets.astype(np.uint8), model.config.classes
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        writer = ScoreWriter(Path(folder), len(names))
        for start in range(0, len(keys), BATCH):
            rows = slice(start, start + BATCH)
            scores = model(torch.from_numpy(found[rows, 0]).float()).sigmoid().numpy()
            writer.add(keys[rows].tolist(), scores, labels[rows])
        return measure(writer.close(), names, [0.5] * len(names))


def student(maps: Path, test_maps: Path, truth: Path, labels: Path, steps: int, seed: int) -> dict[str, Any]:
    """Train and measure one: mAP of all things and of those that are rarely named, and the AP of each tag."""
    torch.set_num_threads(1)
    start = time.process_time()
    keys, found = read_maps(maps)
    targets = Labels.load(labels)
    if not np.array_equal(keys, targets.keys):
        raise SystemExit(f"{labels} and {maps} are of other images: remove both")
    model = train(found, targets, steps, seed)
    if labels.stem == "parsed" and seed == 0:
        save(model, labels.parent.parent / "tagger")
    objects = test(model, test_maps, truth).tags[:THINGS]
    rare = [tag for tag, rarely in zip(objects, RARE, strict=True) if rarely]
    return {
        "map": summarise(objects).map,
        "map_rare": summarise(rare).map,
        "cf1": summarise(objects).cf1,
        "ap": {tag.tag: tag.ap for tag in objects},
        "cpu_seconds": round(time.process_time() - start, 1),
    }
