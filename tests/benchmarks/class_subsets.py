"""Some of the classes: what that saves at the published size of RAM++, and which tags a shortlist loses.

    python tests/benchmarks/class_subsets.py [--threads N] [--rounds N] [--batch 1 4] [--count N] [--scenes N]

The speed is that of the head alone, with random weights and image tokens, all classes turn by turn against
a shortlist for each image and against one list for all (`predict --taglist`): medians of CPU seconds; with
--encoder also what remains of the time with the image encoder (Swin-L 384), which every image needs. The
loss is that of the demo's tagger on the demo's scenes: of the tags over a threshold when all classes are
scored, and of the true ones among these, the share that is not on the shortlist that the demo's CLIP makes.
"""

import argparse
import io
import statistics
import tarfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import torch
from figures import say
from ram_head import TOKENS, model_of

from tagmill.models.base import Image
from tagmill.models.open_clip import OpenClip
from tagmill.models.ram.config import EncoderConfig
from tagmill.models.ram.convert import SWIN
from tagmill.models.ram.encoder import Encoder
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.models.ram.shortlist import Shortlist, score_some
from tagmill.models.ram.tagger import RamTagger

THRESHOLD = 0.4
"""Score from which the demo's config takes a tag."""

BATCH = 50
IMAGE_SIZE = 384


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.inference_mode()
def speed(model: RamPlus, count: int, batch: int, rounds: int, encoder: Encoder | None) -> None:
    """Say the time of all classes, of shortlists and of one list for a batch of images."""
    tokens = torch.randn(batch, TOKENS, 512)
    chosen = torch.stack([torch.randperm(len(model.config.classes))[:count] for _ in range(batch)])
    whole, some = model.score(tokens).sigmoid(), score_some(model, tokens, chosen)
    difference = (some - whole)[some > 0].abs().max()
    ways: dict[str, Callable[[], object]] = {
        "all classes": lambda: model.score(tokens),
        f"{count} classes each": lambda: score_some(model, tokens, chosen),
        f"{count} classes for all": lambda: model.score(tokens, model.labels[chosen[0]]),
    }
    images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE)
    runs = [[seconds(way) for way in ways.values()] for _ in range(rounds)]
    encoding = [seconds(lambda: encoder(images)) for _ in range(rounds)] if encoder else []
    for place, name in enumerate(ways):
        what = f"head, {batch} images, {name}"
        say("class_subsets", what, statistics.median(run[place] for run in runs), "CPU s")
        if place:
            ratio = statistics.median(run[0] / run[place] for run in runs)
            say("class_subsets", f"{what}: times as fast", ratio)
        if place and encoding:
            both = zip(runs, encoding, strict=True)
            share = statistics.median((run[place] + image) / (run[0] + image) for run, image in both)
            say("class_subsets", f"{what}: share of the time, with the encoder", share)
    if encoding:
        say("class_subsets", f"encoder, {batch} images", statistics.median(encoding), "CPU s")
    say("class_subsets", f"head, {batch} images: largest difference of a score", float(difference))


def scenes(data: Path, limit: int) -> tuple[list[Image], list[set[str]]]:
    """Read the demo's scenes, and the names of what each shows."""
    rows = pq.read_table(data / "truth.parquet", columns=["key", "tags"]).to_pylist()
    truth = {row["key"]: set(row["tags"]) for row in rows}
    images, shown = [], []
    for path in sorted(data.glob("scenes-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg") and len(images) < limit:
                    pixels = tar.extractfile(member).read()
                    images.append(np.asarray(PIL.Image.open(io.BytesIO(pixels)).convert("RGB")))
                    shown.append(truth[member.name.removesuffix(".jpg")])
    return images, shown


def loss(data: Path, limit: int, counts: list[int]) -> None:
    """Say which share of the tagger's tags, and of its true tags, a shortlist of each length loses."""
    images, shown = scenes(data, limit)
    whole = RamTagger(str(data / "tagger"), device="cpu")
    whole.load()
    parts = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
    full = np.concatenate([whole.predict([whole.prepare(image) for image in part]) for part in parts])
    seen = full >= THRESHOLD
    true = seen & np.array([[name in names for name in whole.classes] for names in shown])
    say("class_subsets", f"{len(images)} scenes: tags over {THRESHOLD}", seen.sum(), "tags")
    say("class_subsets", f"{len(images)} scenes: true tags over {THRESHOLD}", true.sum(), "tags")
    clip = OpenClip(f"local-dir:{data / 'clip'}", template="a {}", device="cpu")
    clip.load()
    for count in counts:
        shortlist = Shortlist(whole.classes, count, clip)
        chosen = torch.cat([shortlist.choose([clip.prepare(image) for image in part]) for part in parts])
        lost = np.ones_like(seen)
        np.put_along_axis(lost, chosen.numpy(), False, axis=1)
        what = f"{count} of {len(whole.classes)} classes"
        say("class_subsets", f"{what}: share of tags lost", lost[seen].mean())
        say("class_subsets", f"{what}: share of true tags lost", lost[true].mean())
        say("class_subsets", f"{what}: share lost by chance", 1 - count / len(whole.classes))


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--encoder", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = Path(str(resources.files("tagmill.models").joinpath("demo", "data")))
    classes = len(RamTagger(str(data / "tagger")).classes)
    share = round(classes * options.count / 4585)
    loss(data, options.scenes, [share, round(0.4 * classes), round(0.6 * classes), round(0.8 * classes)])
    model = model_of(4585)
    encoder = None
    if options.encoder:
        published = EncoderConfig(name=SWIN, arguments={"window_size": IMAGE_SIZE // 32}, width=1536)
        encoder = Encoder(published, IMAGE_SIZE).eval()
    for batch in options.batch:
        speed(model, options.count, batch, options.rounds, encoder)


if __name__ == "__main__":
    main()
