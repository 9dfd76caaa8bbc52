"""The loader on shards in an object store, against local files and against webdataset, in one run.

    PYTHONPATH=tests/support python tests/benchmarks/store_loading.py DATASET [--workers N] [--rounds N]

DATASET is a folder of shards, which is copied into a bucket of moto's server on this machine (`make
services` installs it); the server takes part of the same cores. Each way to read gives its images a second
as part of what the loader gives from local files: samples anywhere in the store; shards in a `data.window`;
the same by way of a `data.cache`; a cache that holds all; and webdataset, from files and by curl from the
same bucket. They take turns; printed are medians. An epoch is a turn, so a cache starts empty but for
`cache, warm`.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset as wds
from figures import say
from loader_speed import FromWebdataset

from services import Service, free_port, installed
from tagmill.models.ram.config import EncoderConfig, RamConfig
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.datasets import open_dataset
from tagmill.tag_system.core import files

WINDOW = 4
BUCKET = "s3://bucket/shards"
ROOM = 1 << 40


def ours(folder: str, model: RamConfig, options: argparse.Namespace, **how: Any) -> Iterator[int]:
    """Give the sizes of an epoch's batches, by the loader."""
    data = {
        "datasets": [{"path": folder, "name": "x"}],
        "batch_size": options.batch,
        "workers": options.workers,
    }
    loader = open_loader(DataConfig.model_validate(data | how), model, "train")
    try:
        for batch in loader:
            yield int(batch.valid.sum())
    finally:
        loader.close()


def theirs(urls: list[str], model: RamConfig, options: argparse.Namespace) -> Iterator[int]:
    """Give the sizes of an epoch's batches, by webdataset."""
    dataset = wds.WebDataset(urls, shardshuffle=len(urls), empty_check=False).shuffle(1000)
    batches = dataset.map(FromWebdataset(model)).batched(options.batch)
    for _, _, captions in wds.WebLoader(
        batches, batch_size=None, num_workers=options.workers, prefetch_factor=2
    ):
        yield len(captions)


def rate(sizes: Iterator[int]) -> float:
    """Read an epoch; images a second."""
    start = time.perf_counter()
    return sum(sizes) / (time.perf_counter() - start)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    for name, value in {"workers": 2, "size": 224, "batch": 16, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    dataset = open_dataset(options.dataset, "train")
    classes = tuple(tag.name for tag in dataset.vocabulary)
    model = RamConfig(encoder=EncoderConfig(name="none", width=8), classes=classes, image_size=options.size)
    names = [Path(dataset.shard_uri(shard)).name for shard in range(len(dataset.shards))]
    port = free_port()
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
    with tempfile.TemporaryDirectory() as scratch:
        service = Service([installed("moto_server", "services"), "-p", str(port)], port, Path(scratch, "log"))
        try:
            fs, path = files.filesystem(BUCKET)
            fs.mkdir("bucket")
            fs.put(f"{options.dataset}/", path, recursive=True)
            cache = {"folder": f"{scratch}/cache", "max_bytes": ROOM}
            ways = {
                "files": lambda: ours(options.dataset, model, options),
                "store, anywhere": lambda: ours(BUCKET, model, options),
                "store, window": lambda: ours(BUCKET, model, options, window=WINDOW),
                "store, window, cache": lambda: ours(BUCKET, model, options, window=WINDOW, cache=cache),
                "store, cache, warm": lambda: ours(BUCKET, model, options, cache=cache),
                "webdataset, files": lambda: theirs(
                    [f"{options.dataset}/{name}" for name in names], model, options
                ),
                "webdataset, store": lambda: theirs(
                    [f"pipe:curl --silent --fail '{fs.sign(f'{path}/{name}')}'" for name in names],
                    model,
                    options,
                ),
            }
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                shutil.rmtree(f"{scratch}/cache", ignore_errors=True)
                for way, sizes in ways.items():
                    rates[way].append(rate(sizes()))
        finally:
            service.kill()
    say("store_loading", "files", statistics.median(rates["files"]), "images/s")
    for way, found in rates.items():
        if way != "files":
            part = statistics.median(one / local for one, local in zip(found, rates["files"], strict=True))
            say("store_loading", f"{way}, part of files", part)


if __name__ == "__main__":
    main()
