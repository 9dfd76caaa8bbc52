"""How fast, how well and in how much memory captions are parsed, against spaCy's own tagger in the same run.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/caption_parser.py speed DATA [--profile]
    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/caption_parser.py memory DATA --captions 500000 --mode fast
    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/caption_parser.py batches DATA

DATA is the folder with captions/; seconds are of the processor, so what else runs does not count.
"""

import argparse
import cProfile
import pstats
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import spacy
from figures import say

from tagmill.tag_system.parser import DEFAULT_SPACY_MODEL, CaptionParser
from tagmill.tag_system.vocabulary import Vocabulary

CHUNK = 1000
UNUSED = ["parser", "ner", "senter", "entity_linker", "attribute_ruler", "lemmatizer"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "memory", "batches"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--captions", type=int, default=5000)
    parser.add_argument("--mode", choices=("default", "fast"), default="default")
    parser.add_argument("--vocabulary")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    vocabulary = Vocabulary.load(options.vocabulary)
    captions = draw(options.data, options.captions)
    if options.what == "speed":
        speed(captions, vocabulary, options.mode if options.profile else None)
    elif options.what == "memory":
        memory(captions, vocabulary, options.mode)
    else:
        batches(captions, vocabulary)


def draw(data: Path, count: int) -> list[str]:
    """So many captions in random order; after all are used once, each has a new word so as to be new."""
    found = []
    for name in ("coco_val2017_captions", "coco_val2014_30k", "flickr30k_captions"):
        found += pq.read_table(data / f"captions/{name}.parquet", columns=["caption"])["caption"].to_pylist()
    random.Random(0).shuffle(found)
    return [
        found[i % len(found)] if i < len(found) else f"{found[i % len(found)]} zq{i}x" for i in range(count)
    ]


def seconds(work: Callable[[Sequence[str]], object], captions: Sequence[str]) -> float:
    start = time.process_time()
    work(captions)
    return time.process_time() - start


def speed(captions: list[str], vocabulary: Vocabulary, profiled: str | None) -> None:
    nlp = spacy.load(DEFAULT_SPACY_MODEL, exclude=UNUSED)
    default, fast = CaptionParser(vocabulary), CaptionParser(vocabulary, mode="fast")
    works = {"tagger": lambda texts: list(nlp.pipe(texts)), "default": default.parse, "fast": fast.parse}
    spent = dict.fromkeys(works, 0.0)
    for work in works.values():
        work(captions[:CHUNK])
    for start in range(0, len(captions), CHUNK):  # in turns, so that all meet the same machine
        for name, work in works.items():
            spent[name] += seconds(work, captions[start : start + CHUNK])
    for name, time_spent in spent.items():
        say("caption_parser", f"speed: {name}", len(captions) / time_spent, "captions/s")
        if name != "tagger":
            say("caption_parser", f"speed: {name}, times as fast as the tagger", spent["tagger"] / time_spent)
    if profiled:
        profile = cProfile.Profile()
        profile.runcall(works[profiled], captions)
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(15)


def memory(captions: list[str], vocabulary: Vocabulary, mode: Literal["default", "fast"]) -> None:
    parser = CaptionParser(vocabulary, mode=mode)
    step = max(CHUNK, len(captions) // 10)
    for start in range(0, len(captions), CHUNK):
        parser.parse(captions[start : start + CHUNK])
        if (start + CHUNK) % step == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            what = f"memory: {mode}, after {start + CHUNK:,} captions"
            say("caption_parser", what, pages * 4096 / 2**20, "MiB")


def batches(captions: list[str], vocabulary: Vocabulary) -> None:
    whole = CaptionParser(vocabulary).parse(captions)
    for size in (1, 7, 256):
        fresh = CaptionParser(vocabulary)
        parts = [one for i in range(0, len(captions), size) for one in fresh.parse(captions[i : i + size])]
        differ = sum(a != b for a, b in zip(whole, parts, strict=True))
        what = f"batches: in calls of {size}, captions of {len(captions):,} that differ"
        say("caption_parser", what, differ, "captions")


if __name__ == "__main__":
    main()
