"""What it changes to decode JPEGs at a fraction of their size (the key `draft`), on real photographs.

    PYTHONPATH=docs/examples python tests/benchmarks/draft_effect.py PHOTOS WEIGHTS LABELS [--draft TIMES]

PHOTOS is a tar of JPEGs, WEIGHTS the folder of the networks of docs/examples/onnx_models.py, LABELS their
names. Each photograph is decoded whole and at a fraction, as it is and enlarged, and shown to a classifier of
224 pixels and a detector of 416. Printed are the time of decoding, the largest change of a score, and the
Jaccard index of what scores over 0.3 (of classes, and of objects that are found), both over all photographs.
"""

import argparse
import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from figures import say
from onnx_models import COCO, MobileNetTagger, YoloxLocalizer
from PIL import Image

from tagmill.models.base import Floats
from tagmill.models.base import Image as Pixels
from tagmill.transforms.images import decode

THRESHOLD = 0.3
CAP = 10**9

Scores = Callable[[Pixels], Floats]
"""Pixels -> a score of each class."""


def enlarged(data: bytes, times: int) -> bytes:
    """A photograph of more pixels, as a camera would store it."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    sink = io.BytesIO()
    image.resize((image.width * times, image.height * times), Image.Resampling.BICUBIC).save(
        sink, "JPEG", quality=90
    )
    return sink.getvalue()


def photographs(path: str, most: int) -> list[bytes]:
    """The JPEGs of a tar."""
    with tarfile.open(path) as tar:
        names = [member for member in tar if member.name.endswith(".jpg")][:most]
        return [tar.extractfile(member).read() for member in names]  # type: ignore[union-attr]


def compare(name: str, photos: list[bytes], least: int, scores: Scores) -> None:
    """Compare decoding whole and at a fraction in which no side is shorter."""
    seconds = [0.0, 0.0]
    changes, common, either = [], 0, 0
    for data in photos:
        seen = []
        for place, size in enumerate((None, (least, least))):
            start = time.process_time()
            pixels = decode(data, CAP, least=size)
            seconds[place] += time.process_time() - start
            seen.append(scores(pixels))
        changes.append(float(np.abs(seen[0] - seen[1]).max()))
        whole, drafted = (found >= THRESHOLD for found in seen)
        common += int((whole & drafted).sum())
        either += int((whole | drafted).sum())
    whole, drafted = (1e3 * spent / len(photos) for spent in seconds)
    say("draft_effect", f"{name}: decoding whole, of a thread", whole, "ms/image")
    say("draft_effect", f"{name}: decoding a fraction, of a thread", drafted, "ms/image")
    say("draft_effect", f"{name}: time, times that of the whole", drafted / whole)
    say("draft_effect", f"{name}: Jaccard index of what scores over {THRESHOLD}", common / max(1, either))
    say("draft_effect", f"{name}: scores over {THRESHOLD} either way", either, "scores")
    say("draft_effect", f"{name}: change of an image's scores, median", float(np.median(changes)))
    say("draft_effect", f"{name}: change of an image's scores, largest", max(changes))


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("weights", type=Path)
    parser.add_argument("labels")
    parser.add_argument("--draft", type=int, default=2, help="times that the sides must be the network's")
    parser.add_argument("--enlarge", type=int, default=5)
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    tagger = MobileNetTagger(str(options.weights / "mobilenet_v2_1.0_224.onnx"), options.labels)
    detector = YoloxLocalizer(str(options.weights / "yolox_nano.onnx"))
    tagger.load()
    detector.load()

    def classes(pixels: Pixels) -> Floats:
        return tagger.predict([tagger.prepare(pixels)])[0]

    def objects(pixels: Pixels) -> Floats:
        (found,) = detector.predict([detector.prepare(pixels)], [COCO])
        best = np.zeros(len(COCO), np.float32)
        np.maximum.at(best, found.tags, found.scores)
        return best

    photos = photographs(options.photos, options.images)
    for name, some in (("as they are", photos), ("enlarged", [enlarged(p, options.enlarge) for p in photos])):
        what = f"draft {options.draft}, {name}"
        compare(f"{what}, classifier of 224", some, 224 * options.draft, classes)
        compare(f"{what}, detector of 416", some, 416 * options.draft, objects)


if __name__ == "__main__":
    main()
