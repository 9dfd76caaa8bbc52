"""The tagger in bfloat16 and float16 against float32: how far scores move, and how many decisions with them.

    python tests/benchmarks/half_precision.py [--scenes N] [--model FOLDER --images FOLDER]

By default the demo's tagger on the demo's scenes, at the demo's threshold; with --model a RAM, RAM++ or
Tag2Text on a folder of JPEGs, at its own thresholds. Which format is faster depends on the machine: a
processor without instructions for it is slower in it.
"""

import argparse
import time
from importlib import resources
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from class_subsets import THRESHOLD, scenes
from figures import say

from tagmill.models.base import Floats, Image
from tagmill.models.ram.tagger import RamTagger

BATCH = 16


def scored(folder: Path, images: list[Image], dtype: str) -> tuple[Floats, float]:
    """Scores [images, classes] in one format, and the CPU seconds that they took."""
    tagger = RamTagger(str(folder), device="cpu", dtype=dtype)
    tagger.load()
    start = time.process_time()
    parts = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
    found = [np.stack(tagger.predict([tagger.prepare(image) for image in part])) for part in parts]
    return np.concatenate(found), time.process_time() - start


def compare(folder: Path, images: list[Image], limits: float | Floats) -> None:
    """Say what each format takes and changes."""
    exact, seconds = scored(folder, images, "float32")
    seen = exact > limits
    say("half_precision", f"float32, {len(images)} images", seconds, "CPU s")
    say("half_precision", f"float32, {len(images)} images: tags", seen.sum(), "tags")
    say("half_precision", f"float32, {len(images)} images: decisions", seen.size, "decisions")
    first = seconds
    for dtype in ("bfloat16", "float16"):
        found, seconds = scored(folder, images, dtype)
        other = found > limits
        say("half_precision", f"{dtype}: CPU seconds, times those of float32", seconds / first)
        say("half_precision", f"{dtype}: change of a score, largest", float(np.abs(found - exact).max()))
        say("half_precision", f"{dtype}: change of a score, mean", float(np.abs(found - exact).mean()))
        say("half_precision", f"{dtype}: tags lost", (seen & ~other).sum(), "tags")
        say("half_precision", f"{dtype}: tags won", (other & ~seen).sum(), "tags")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.model is None:
        data = Path(str(resources.files("tagmill.models").joinpath("demo", "data")))
        compare(data / "tagger", scenes(data, options.scenes)[0], THRESHOLD)
        return
    files = sorted(options.images.glob("*.jpg"))[: options.scenes]
    images = [np.asarray(PIL.Image.open(path).convert("RGB")) for path in files]
    own = RamTagger(str(options.model)).thresholds
    compare(options.model, images, THRESHOLD if own is None else np.asarray(own, np.float32))


if __name__ == "__main__":
    main()
