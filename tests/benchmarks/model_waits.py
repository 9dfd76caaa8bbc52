"""Whether a model ever waits for pixels: a model that sleeps, behind real decoding and real preparation.

    PYTHONPATH=tests/support python tests/benchmarks/model_waits.py [--images N] [--side PIXELS] [--threads N]

JPEGs like photographs go through a stage whose model does nothing but sleep, for 1.3 times what the
preparation of a batch takes, divided by the threads. Printed are, for each preparation: milliseconds of a
thread for decoding and for preparing an image; images a second that threads alone give, and how that grows
with them; and the share of the stage's time that the model stood waiting.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import say
from PIL import Image

import tiny_models
from sources import write_tar
from stage_runs import Bench
from tagmill.models.base import Floats, Prepared
from tagmill.models.grounding_dino import GroundingDino
from tagmill.models.ram import preprocess
from tagmill.models.ram.tagger import RamTagger
from tagmill.runners.commands.demo import embedded
from tagmill.transforms import parts
from tagmill.transforms.decode_ahead import Decoder
from tagmill.transforms.ingest import IngestConfig
from tagmill.transforms.tag import TagConfig, TagStage

BATCH = 8


class Sleeping:
    """Prepares images as another model does, and sleeps instead of running."""

    classes = ("nothing",)

    def __init__(self, name: str, folder: Path, seconds: float = 0.0) -> None:
        self._seconds = seconds
        if name == "ram":
            size = RamTagger(str(embedded() / "tagger")).config.model_copy(update={"image_size": 384})
            self.prepare = lambda image: preprocess.prepare(image, size)
            self.size_of = lambda width, height: (384, 384)
        else:
            model = GroundingDino(str(folder), shortest=800, longest=1333, pad_to=160)
            self.prepare, self.size_of = model.prepare, model.size_of

    def predict(self, batch: list[Prepared]) -> list[Floats]:
        """Sleep as long as a batch takes."""
        time.sleep(self._seconds)
        return [np.zeros(1, np.float32)] * len(batch)


def picture(side: int, seed: int) -> bytes:
    """A JPEG that is as hard to decode as a photograph: shapes of many sizes, and some noise."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (side, side * 2 // 3))
    for scale in (8, 64, 512):
        coarse = Image.fromarray(random.integers(0, 256, (scale * 2 // 3, scale, 3), np.uint8))
        image = Image.blend(image, coarse.resize(image.size, Image.Resampling.BICUBIC), 0.4)
    found = io.BytesIO()
    image.save(found, "JPEG", quality=90)
    return found.getvalue()


def measure(inputs: parts.Inputs, bench: Bench, name: str, folder: Path, threads: int) -> dict[str, float]:
    """Measure one preparation with some threads."""
    model = Sleeping(name, folder)
    examples = [inputs.examples[row] for row in inputs.rows]
    start = time.perf_counter()
    with Decoder(threads, 10**9) as decoder:
        for _ in decoder.pixels(
            examples, inputs.root, lambda _, image: model.prepare(image), lambda _: 12 << 20
        ):
            pass
    alone = time.perf_counter() - start
    bench.shared = bench.shared.__class__(**{**vars(bench.shared), "decode_threads": threads})
    stage = TagStage(TagConfig(model="unused", batch_size=BATCH), bench.shared)
    stage.model = Sleeping(name, folder, 1.3 * BATCH * alone / len(examples))
    start = time.perf_counter()
    spent = stage.process(inputs).seconds
    total = time.perf_counter() - start
    return {
        "decode": 1e3 * decoder.seconds / len(examples),
        "prepare": 1e3 * decoder.preparing / len(examples),
        "alone": len(examples) / alone,
        "wait": spent["wait"] / total,
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--side", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = [picture(options.side, seed) for seed in range(8)]
        contents = [(f"{number:04}.jpg", data[number % 8]) for number in range(options.images)]
        bench = Bench(folder / "run", part_size=options.images)
        bench.ingest(write_tar(folder / "a.tar", contents), IngestConfig())
        root = bench.roots[bench.names[0]]
        inputs = parts.Inputs(bench.names[0], {"ingest": bench.part("ingest")}, {}, root)
        tiny_models.grounding_dino(folder / "dino")
        for preparation in ("ram", "grounding-dino"):
            one = measure(inputs, bench, preparation, folder / "dino", 1)
            many = measure(inputs, bench, preparation, folder / "dino", options.threads)
            say("model_waits", f"{preparation}: decoding, of a thread", one["decode"], "ms/image")
            say("model_waits", f"{preparation}: preparing, of a thread", one["prepare"], "ms/image")
            say("model_waits", f"{preparation}: 1 thread alone", one["alone"], "images/s")
            growth = many["alone"] / one["alone"]
            say("model_waits", f"{preparation}: {options.threads} threads alone, times as fast", growth)
            for threads, found in ((1, one), (options.threads, many)):
                what = f"{preparation}: share of the time that the model waits, threads {threads}"
                say("model_waits", what, found["wait"])


if __name__ == "__main__":
    main()
