"""The loader against webdataset's own pipeline on the same shards, in one run.

    python tests/benchmarks/loader_speed.py DATASET [--workers N] [--size PX] [--batch N] [--rounds N]

DATASET is a folder of shards, of which the split train is read. Both sides decode with Pillow, augment by
the training view and give batches of images, targets and captions, with as many workers, which live through
all rounds. webdataset shuffles shards and a buffer of 1,000 samples; the loader's order is a permutation of
all. They take turns; printed are medians of images a second, and the median ratio.
"""

import argparse
import io
import json
import random
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
import webdataset as wds
from figures import say
from PIL import Image

from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.datasets import open_dataset
from tagmill.models.training.views import TrainView


class FromWebdataset:
    """One sample of webdataset -> image, targets, caption; what a user of webdataset writes."""

    def __init__(self, model: RamConfig) -> None:
        self._view = TrainView(model)
        self._places = {name: place for place, name in enumerate(model.classes)}

    def __call__(self, sample: dict[str, Any]) -> tuple[Any, ...]:
        data = next(sample[name] for name in ("jpg", "png", "webp") if name in sample)
        image = self._view(Image.open(io.BytesIO(data)).convert("RGB"), random.getrandbits(63))
        record = json.loads(sample["json"])
        target = torch.zeros(len(self._places))
        target[[self._places[tag["tag"]] for tag in record["tags"] if tag["verdict"] == "kept"]] = 1
        captions = record["captions"]
        return image, target, random.choice(captions)["text"] if captions else ""


def theirs(urls: list[str], model: RamConfig, options: argparse.Namespace) -> Iterator[Any]:
    """webdataset without end."""
    dataset = wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).map(FromWebdataset(model))
    dataset = dataset.repeat().batched(options.batch)
    ahead = 2 if options.workers else None
    return iter(wds.WebLoader(dataset, batch_size=None, num_workers=options.workers, prefetch_factor=ahead))


def ours(folder: str, model: RamConfig, options: argparse.Namespace, tags: str) -> Iterator[Any]:
    """The loader without end."""
    # A weight that makes epochs long: on small datasets their ends would be measured, not the reading.
    dataset = {"path": folder, "weight": 100, "tags": tags}
    settings = {"datasets": [dataset], "batch_size": options.batch, "workers": options.workers}
    loader = open_loader(DataConfig.model_validate(settings), model, "train")
    while True:
        yield from loader


def rate(batches: Iterator[Any], options: argparse.Namespace) -> float:
    """Take batches; images a second."""
    start = time.perf_counter()
    for _ in range(options.batches):
        next(batches)
    return options.batches * options.batch / (time.perf_counter() - start)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    for name, value in {"workers": 2, "size": 224, "batch": 16, "rounds": 5, "batches": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--tags", default="stored")
    options = parser.parse_args()
    dataset = open_dataset(options.dataset, "train")
    model = RamConfig(
        encoder=EncoderConfig(name="none", width=8),
        classes=tuple(tag.name for tag in dataset.vocabulary),
        image_size=options.size,
    )
    urls = [dataset.shard_uri(shard) for shard in range(len(dataset.shards))]
    sides = [theirs(urls, model, options), ours(options.dataset, model, options, options.tags)]
    rates = [[rate(side, options) for side in sides] for _ in range(options.rounds + 1)][1:]  # one to warm up
    ratio = statistics.median(own / their for their, own in rates)
    their, own = (statistics.median(pair[side] for pair in rates) for side in (0, 1))
    what = f"{options.workers} workers"
    say("loader_speed", f"{what}: webdataset", their, "images/s")
    say("loader_speed", f"{what}: tagmill", own, "images/s")
    say("loader_speed", f"{what}: tagmill, times as fast", ratio)


if __name__ == "__main__":
    main()
