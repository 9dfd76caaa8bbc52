"""Memory and time of the metrics and the thresholds at the size of a real benchmark, on drawn scores.

    python tests/benchmarks/evaluation_memory.py [--images 57000] [--tags 4585] [--folder DIR]

A model's scores on that many images are written, measured and calibrated on, as `tagmill models eval` and
`calibrate` do after the model; labels are drawn like the shown tags of OpenImages. Printed are the seconds of
each part and by how much it raised the peak of resident memory (Linux). All scores and labels together
would be 5 bytes an image and tag.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from figures import say
from ram_head import measure as measured

from tagmill.models.training.calibration import Aim, calibrate
from tagmill.models.training.metrics import measure
from tagmill.models.training.scores import ScoreStore, ScoreWriter

BATCH, SHOWN = 64, 0.002
Result = TypeVar("Result")


def write(folder: Path, images: int, tags: int) -> ScoreStore:
    """Draw scores, those of shown tags higher, and store them a batch at a time."""
    chance, writer = np.random.default_rng(0), ScoreWriter(folder, tags)
    for start in range(0, images, BATCH):
        count = min(BATCH, images - start)
        labels = (chance.random((count, tags), np.float32) < SHOWN).astype(np.uint8)
        scores = np.clip(chance.random((count, tags), np.float32) * 0.6 + 0.4 * labels, 0, 1)
        writer.add([f"image-{start + row}" for row in range(count)], scores, labels)
    return writer.close()


def timed(name: str, work: Callable[[], Result]) -> Result:
    """Run and say what it took."""
    found: list[Result] = []
    seconds, memory = measured(lambda: found.append(work()))
    say("evaluation_memory", f"{name}: time", seconds, "CPU s")
    say("evaluation_memory", f"{name}: memory above what was there", memory, "MB")
    return found[0]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=57_000)
    parser.add_argument("--tags", type=int, default=4_585)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        names = [f"tag {number}" for number in range(options.tags)]
        store = timed("write", lambda: write(Path(name) / "scores", options.images, options.tags))
        whole = 5 * options.images * options.tags / 2**20
        found = timed("measure", lambda: measure(store, names, [0.5] * options.tags))
        timed("calibrate", lambda: calibrate(store, names, Aim()))
    say("evaluation_memory", "all scores and labels", whole, "MB")
    say("evaluation_memory", "mAP", found.summary().map)


if __name__ == "__main__":
    main()
