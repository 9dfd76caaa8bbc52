"""The demo's models as ONNX files against the checkpoints that they were made of, in torch.

    python tests/benchmarks/without_torch.py [--images N] [--rounds N]

Both predict the same scenes as one batch in one thread, turn by turn in one run; printed are their medians
of CPU seconds and the ratio. The largest difference is that of scores, and of numbers in unit vectors.
"""

import argparse
import io
import os
import statistics
import tarfile
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import PIL.Image
import torch
from figures import say

from tagmill.models.base import Image, create
from tagmill.runners.commands.demo import embedded

PROMPT = ("dog", "fire truck", "palm tree", "hot dog", "key")
Call = Callable[[], list[np.ndarray]]


def scenes(count: int) -> list[Image]:
    """Decode the demo's first scenes."""
    with tarfile.open(embedded() / "scenes-000000.tar") as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")][:count]
        data = [archive.extractfile(name).read() for name in names]  # type: ignore[union-attr]
    return [np.asarray(PIL.Image.open(io.BytesIO(one)).convert("RGB")) for one in data]


def made(name: str, **options: Any) -> Any:
    """A model that is loaded."""
    model = create(name, options)
    model.load()
    return model


def tagging(model: Any, images: list[Image]) -> Call:
    """Score all classes."""
    batch = [model.prepare(image) for image in images]
    return lambda: model.predict(batch)


def locating(model: Any, images: list[Image]) -> Call:
    """Look for a few things."""
    batch, prompts = [model.prepare(image) for image in images], [PROMPT] * len(images)
    return lambda: [found.scores for found in model.predict(batch, prompts)]


def embedding(model: Any, images: list[Image]) -> Call:
    """Embed regions, as many as images."""
    batch = [model.prepare(image) for image in images]
    return lambda: [model.predict(batch)]


def naming(model: Any, images: list[Image]) -> Call:
    """Embed names, as many as images."""
    names = [f"{word} {number}" for number in range(len(images)) for word in PROMPT[:1]]
    return lambda: [model.sentences(names)]


def compare(what: str, torch_call: Call, onnx_call: Call, rounds: int) -> None:
    """Call both in turns, and say what they took."""
    expected, found = torch_call(), onnx_call()
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for call, times in zip((torch_call, onnx_call), taken, strict=True):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    in_torch, in_onnx = (statistics.median(times) for times in taken)
    say("without_torch", f"{what}, in torch", in_torch, "CPU s")
    say("without_torch", f"{what}, by onnxruntime", in_onnx, "CPU s")
    say("without_torch", f"{what}, of torch's CPU seconds", in_onnx / in_torch)
    differences = [float(np.abs(a - b).max(initial=0)) for a, b in zip(expected, found, strict=True)]
    say("without_torch", f"{what}, largest difference", max(differences), "")


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, data = scenes(options.images), embedded()
    device = {"device": "cpu"}
    tagger = made("ram", path=str(data / "tagger"), **device), made("onnx", path=str(data / "tagger.onnx"))
    detector = (
        made("grounding-dino", path=str(data / "grounding-dino"), **device),
        made("onnx-grounding-dino", path=str(data / "grounding-dino-onnx")),
    )
    clip = (
        made("open-clip", model=f"local-dir:{data / 'clip'}", **device),
        made("onnx-clip", path=str(data / "clip-onnx")),
    )
    for what, pair, use in (
        ("tag", tagger, tagging),
        ("localize", detector, locating),
        ("embed regions", clip, embedding),
        ("embed names", clip, naming),
    ):
        compare(what, use(pair[0], images), use(pair[1], images), options.rounds)


if __name__ == "__main__":
    main()
