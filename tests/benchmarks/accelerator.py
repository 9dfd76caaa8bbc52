"""The models alone on an accelerator, at their published sizes, decoding beside them; and a training step.

    PYTHONPATH=build/ns python tests/benchmarks/accelerator.py [PART ...] [--device cuda] [--size full|small]

It needs torch, timm, transformers, open_clip and pydantic, but neither Beam nor spaCy: it runs beside the
torch of a machine with a GPU. PARTS: `tag` (RAM++, Swin-L 384, 4,585 classes), `localize` (Grounding DINO
tiny at 800 x 1333), `embed` (CLIP ViT-B-16), `train` (RAM++, Swin-L 224: forward, backward, step) and `faiss`
(k-means of region embeddings). Weights are random. JPEGs of photographs' sizes go through the engine's own
decoder, whose threads prepare them while the model runs. Figures: images a second with decoding and without,
the share of the time that the model waits, memory, arithmetic a second (counted, in the format that is used),
and for each way to run (bfloat16, compiled, channels last) the largest change of a result.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import say
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from tagmill.models.ram import store
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig
from tagmill.models.ram.losses import tagging_loss
from tagmill.models.ram.streaming import streamed_loss
from tagmill.models.ram.tagger import RamTagger
from tagmill.transforms.decode_ahead import Decoder

SIZES = ((640, 480), (480, 640), (640, 427), (500, 375))
"""Width and height of the photographs, by turns, as in COCO."""

SWIN = "swin_large_patch4_window12_384"
TINY_SWIN = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 2)}


def photographs(count: int) -> list[bytes]:
    """JPEGs as hard to decode as photographs."""
    found = []
    for seed in range(min(count, 32)):
        random = np.random.default_rng(seed)
        image = Image.new("RGB", SIZES[seed % len(SIZES)])
        for scale in (8, 64, 256):
            coarse = Image.fromarray(random.integers(0, 256, (scale, scale, 3), np.uint8))
            image = Image.blend(image, coarse.resize(image.size, Image.Resampling.BICUBIC), 0.4)
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=90)
        found.append(sink.getvalue())
    return [found[number % len(found)] for number in range(count)]


def examples(folder: Path, count: int) -> list[dict[str, Any]]:
    """Rows as ingest makes them, of photographs in one file; those of a size stand together."""
    import hashlib

    rows, place = [], 0
    ordered = sorted(enumerate(photographs(count)), key=lambda one: one[0] % len(SIZES))
    with (folder / "photographs").open("wb") as file:
        for row, (number, data) in enumerate(ordered):
            width, height = SIZES[number % min(count, 32) % len(SIZES)]
            image = {"kind": "range", "uri": "photographs", "offset": place, "size": len(data)}
            digest = hashlib.sha256(data).hexdigest()
            rows.append({"row": row, "key": str(row), "image": image, "sha256": digest, "format": "JPEG"})
            rows[-1] |= {"width": width, "height": height}
            file.write(data)
            place += len(data)
    return rows


class Meter:
    """Times work on a device, counts its arithmetic, and says both."""

    def __init__(self, part: str, device: str) -> None:
        self._part, self._is_gpu = part, device.startswith("cuda")

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self._is_gpu:
            torch.cuda.synchronize()

    def rate(self, work: Callable[[], object], seconds: float) -> float:
        """Run work again and again, at least twice; gives runs a second."""
        work()
        self.wait()
        start, count = time.perf_counter(), 0
        while count < 2 or time.perf_counter() - start < seconds:
            work()
            count += 1
            self.wait()
        return count / (time.perf_counter() - start)

    def say(self, what: str, value: float, unit: str = "ratio") -> None:
        """Say a figure of this part."""
        say(f"accelerator {self._part}", what, value, unit)

    def arithmetic(self, work: Callable[[], object]) -> float:
        """Count operations of one run, 1e12."""
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops() / 1e12

    def memory(self) -> None:
        """Say the peak of the device's memory so far, and begin anew."""
        if self._is_gpu:
            self.say("memory", torch.cuda.max_memory_allocated() / 1e9, "GB")
            torch.cuda.reset_peak_memory_stats()


def measure(
    meter: Meter,
    way: str,
    model: Any,
    predict: Callable[[list[Any]], Any],
    rows: Sequence[dict[str, Any]],
    folder: Path,
    options: argparse.Namespace,
) -> Any:
    """Measure a model with decoding beside it, and alone; gives what it says of the first batch."""
    batch = options.batch

    def size_of(example: dict[str, Any]) -> int:
        wide, high = model.size_of(example["width"], example["height"])
        return 12 * wide * high

    with Decoder(options.threads, 10**8, ahead=2 * batch) as decoder:
        stream = decoder.pixels(rows, str(folder), lambda _, image: model.prepare(image), size_of)
        first = [next(stream) for _ in range(min(batch, len(rows)))]
        answer = predict(first)
        meter.wait()
        decoder.waited, start, done = 0.0, time.perf_counter(), 0
        while some := [one for _, one in zip(range(batch), stream, strict=False)]:
            predict(some)
            done += len(some)
        meter.wait()
        total = time.perf_counter() - start
    alone = meter.rate(lambda: predict(first), options.seconds)
    work = meter.arithmetic(lambda: predict(first))
    if done:
        meter.say(f"{way}: with decoding", done / total, "images/s")
        meter.say(f"{way}: share of the time that it waits", decoder.waited / total)
        spent = 1e3 * (decoder.seconds + decoder.preparing) / len(rows)
        meter.say(f"{way}: decoding and preparing, of a thread", spent, "ms/image")
    meter.say(f"{way}: alone", alone * len(first), "images/s")
    meter.say(f"{way}: arithmetic", alone * work, "TFLOP/s")
    meter.memory()
    return answer


def ram(size: str, image_size: int) -> RamConfig:
    """RAM++ at its published size, or small."""
    if size == "full":
        return RamConfig(
            image_size=image_size,
            encoder=EncoderConfig(name=SWIN, arguments={"window_size": image_size // 32}, width=1536),
            classes=[f"class {number}" for number in range(4585)],
            descriptions=51,
        )
    return RamConfig(
        image_size=image_size,
        encoder=EncoderConfig(name=SWIN, arguments=TINY_SWIN | {"window_size": image_size // 32}, width=128),
        head=HeadConfig(hidden=32, heads=2, inner=64),
        classes=[f"class {number}" for number in range(64)],
        descriptions=3,
    )


def labels_of(config: RamConfig) -> torch.Tensor:
    """Label embeddings, drawn."""
    return torch.nn.functional.normalize(torch.randn(len(config.classes) * config.descriptions, 512))


def tag(rows: Sequence[dict[str, Any]], folder: Path, options: argparse.Namespace) -> None:
    """RAM++ as the stage runs it, in each format."""
    torch.manual_seed(0)
    config = ram(options.size, 384)
    model = store.build(config)
    model.set_labels(labels_of(config))
    store.save(model, folder / "ram")
    exact: Any = None
    for dtype in ("float32", "bfloat16"):
        tagger = RamTagger(str(folder / "ram"), device=options.device, dtype=dtype)
        tagger.load()
        ways = (
            ("", ", channels last", ", compiled") if dtype == "bfloat16" and options.size == "full" else ("",)
        )
        for way in ways:
            if way == ", channels last":
                tagger._model.to(memory_format=torch.channels_last)
            if way == ", compiled":
                tagger._model.encode = torch.compile(tagger._model.encode)
            meter = Meter("tag", options.device)
            found = np.stack(measure(meter, dtype + way, tagger, tagger.predict, rows, folder, options))
            exact = found if exact is None else exact
            meter.say(f"{dtype}{way}: largest change of a score", float(np.abs(found - exact).max()))


def localize(rows: Sequence[dict[str, Any]], folder: Path, options: argparse.Namespace) -> None:
    """Grounding DINO as the stage runs it, with a dozen tags an image."""
    from tagmill.models.grounding_dino import GroundingDino

    save_grounding_dino(folder / "dino", options.size)
    sides = {"shortest": 800, "longest": 1333, "pad_to": 160} if options.size == "full" else {"pad_to": 32}
    names = [
        "dog",
        "cat",
        "car",
        "red",
        "glass",
        "oil",
        "fire",
        "truck",
        "hot",
        "zebra",
        "giraffe",
        "crossing",
    ]
    for dtype in ("float32", "bfloat16"):
        model = GroundingDino(str(folder / "dino"), device=options.device, dtype=dtype, **sides)
        model.load()

        def predict(batch: list[Any], model: Any = model) -> Any:
            model.read([names] * len(batch), len(batch))
            return model.predict(batch, [names] * len(batch))

        measure(Meter("localize", options.device), dtype, model, predict, rows, folder, options)


def save_grounding_dino(folder: Path, size: str) -> None:
    """Save a Grounding DINO with random weights: the tiny one as published, or a far smaller one."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    import tiny_models

    if size == "small":
        tiny_models.grounding_dino(folder)
        return
    torch.manual_seed(0)
    stages = ["stage2", "stage3", "stage4"]
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(window_size=7, image_size=384, out_features=stages),
        text_config=BertConfig(),
        disable_custom_kernels=True,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    GroundingDinoProcessor(
        GroundingDinoImageProcessor(), BertTokenizer(vocab=tiny_models.word_pieces())
    ).save_pretrained(folder)


def embed(rows: Sequence[dict[str, Any]], folder: Path, options: argparse.Namespace) -> None:
    """CLIP as the stage runs it, on whole images in the place of regions."""
    from tagmill.models.open_clip import OpenClip

    if options.size == "small":
        import tiny_models

        source = {"model": f"local-dir:{tiny_models.open_clip(folder / 'clip')}"}
    else:
        import open_clip

        torch.manual_seed(0)
        torch.save(open_clip.create_model("ViT-B-16").state_dict(), folder / "clip.pt")
        source = {"model": "ViT-B-16", "pretrained": str(folder / "clip.pt")}
    for dtype in ("float32", "bfloat16"):
        model = OpenClip(device=options.device, dtype=dtype, **source)
        model.load()
        measure(Meter("embed", options.device), dtype, model, model.predict, rows, folder, options)


def train(rows: Sequence[dict[str, Any]], folder: Path, options: argparse.Namespace) -> None:
    """Steps of the tagging loss with mixed precision, on random images; decoding is left out."""
    torch.manual_seed(0)
    side = 224 if options.size == "full" else 128
    config = ram(options.size, side)
    model: Any = store.build(config).to(options.device)
    model.set_labels(labels_of(config).to(options.device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    images = torch.randn(options.batch, 3, side, side, device=options.device)
    targets = (torch.rand(options.batch, len(config.classes), device=options.device) < 0.005).float()

    def mixed() -> Any:
        is_gpu = options.device.startswith("cuda")
        return torch.autocast("cuda", torch.bfloat16) if is_gpu else nullcontext()

    def forward() -> None:
        with mixed(), torch.no_grad():
            model.score(model.encode(images))

    def step() -> None:
        with mixed():
            tokens = model.encode(images)
            loss = streamed_loss(model, tokens, lambda logits, some: tagging_loss(logits, targets[:, some]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    meter = Meter("train", options.device)
    rate = meter.rate(step, options.seconds)
    work = 3 * meter.arithmetic(forward)  # backward takes twice as much
    meter.say("a step", rate * options.batch, "images/s")
    meter.say("arithmetic", rate * work, "TFLOP/s")
    if options.peak:
        meter.say("of the peak", rate * work / options.peak)
    meter.memory()


def faiss(rows: Sequence[dict[str, Any]], folder: Path, options: argparse.Namespace) -> None:
    """K-means of a tag's sample, on the CPU and where faiss has it on the GPU."""
    import faiss as library

    vectors = np.random.default_rng(0).standard_normal((4096, 512)).astype(np.float32)
    places = [False, True] if getattr(library, "get_num_gpus", lambda: 0)() else [False]
    for gpu in places:
        meter = Meter("faiss", "cpu")
        where = "GPU" if gpu else "CPU"

        def cluster(gpu: bool = gpu) -> None:
            library.Kmeans(512, 8, niter=20, seed=0, gpu=gpu).train(vectors)

        meter.say(f"k-means of 4,096 regions, {where}", meter.rate(cluster, options.seconds), "tags/s")


PARTS = {"tag": tag, "localize": localize, "embed": embed, "train": train, "faiss": faiss}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="that decode")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each figure")
    parser.add_argument("--peak", type=float, help="TFLOP/s that the device gives in bfloat16")
    options = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    for name in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](examples(Path(folder), options.images), Path(folder), options)


if __name__ == "__main__":
    main()
