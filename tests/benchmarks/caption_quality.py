"""How well captions are parsed: against tags read by hand, against COCO's categories, between near twins.

    PYTHONPATH=tests/support python tests/benchmarks/caption_quality.py gold DATA [--mode fast]
    PYTHONPATH=tests/support python tests/benchmarks/caption_quality.py coco DATA
    PYTHONPATH=tests/support python tests/benchmarks/caption_quality.py sugarcrepe DATA

DATA is the folder with captions/, gold/, ram_tags/, vocab/ and nltk_data/. `gold` takes RAM's imported list,
the others the built-in vocabulary, or what --vocabulary names.
"""

import argparse
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
from figures import say

from caption_scores import interval, mark, read_captions, scores
from tagmill.tag_system.builder.ram import import_ram, read_lines
from tagmill.tag_system.parser import CaptionParser
from tagmill.tag_system.vocabulary import Vocabulary

OWN = Path(__file__).parents[1] / "tag_system/captions/coco.jsonl"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("what", choices=("gold", "coco", "sugarcrepe"))
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--mode", choices=("default", "fast"), default="default")
    arguments.add_argument("--vocabulary")
    options = arguments.parse_args()
    os.environ.setdefault("NLTK_DATA", str(options.data / "nltk_data"))
    if options.what == "gold" and not options.vocabulary:
        vocabulary = import_ram(read_lines(str(options.data / "ram_tags/ram_tag_list.txt")))
    else:
        vocabulary = Vocabulary.load(options.vocabulary)
    parser = CaptionParser(vocabulary, mode=options.mode)
    {"gold": gold, "coco": coco, "sugarcrepe": sugarcrepe}[options.what](parser, options.data)


def gold(parser: CaptionParser, data: Path) -> None:
    """Precision, recall, F1 with its 95 % bootstrap interval, and every error."""
    for path in (data / "gold/caption_tags_dev.jsonl", OWN):
        rows = read_captions(path)
        marks = mark(parser, rows)
        found, (low, high) = scores(marks), interval(marks)
        what = f"gold: {path.name}, {parser.mode}"
        for name, value in {"precision": found.precision, "recall": found.recall, "F1": found.f1}.items():
            say("caption_quality", f"{what}: {name}", value)
        say("caption_quality", f"{what}: F1, 95 % interval from", low)
        say("caption_quality", f"{what}: F1, 95 % interval to", high)
        say("caption_quality", f"{what}: captions", len(rows), "captions")
        for row, one in zip(rows, marks, strict=True):
            if one.missed or one.wrong:
                text = row["caption"].strip()
                write(f"  {text} | missed: {names(one.missed)} | wrong: {names(one.wrong)}")


def coco(parser: CaptionParser, data: Path) -> None:
    """What the captions of an image say of its categories, whose synonyms are CHAIR's."""
    table = pq.read_table(data / "captions/coco_val2017_captions.parquet").to_pylist()
    categories = tags_of_categories(parser.vocabulary, data / "vocab/coco80_synonyms.txt")
    truth: dict[int, set[str]] = {row["image_id"]: set(row["categories"]) for row in table}
    said: dict[int, set[str]] = defaultdict(set)
    for row, mentions in zip(table, parser.parse([row["caption"] for row in table]), strict=True):
        said[row["image_id"]].update(categories[one.tag] for one in mentions if one.tag in categories)
    hits = Counter(name for image, real in truth.items() for name in real & said[image])
    real = Counter(name for names in truth.values() for name in names)
    stated = Counter(name for names in said.values() for name in names)
    for name in sorted(real, key=lambda name: -real[name]):
        write(f"{name:16} {ratio(hits[name], stated[name])} {ratio(hits[name], real[name])} {real[name]:5}")
    say("caption_quality", "coco: precision of all categories", hits.total() / stated.total())
    say("caption_quality", "coco: recall of all categories", hits.total() / real.total())
    say("caption_quality", "coco: images", len(truth), "images")


def tags_of_categories(vocabulary: Vocabulary, synonyms: Path) -> dict[str, str]:
    """The category of each tag that a synonym names, or that ends in one: a coffee cup is a cup."""
    found: dict[str, str] = {}
    for line in synonyms.read_text(encoding="utf-8").splitlines():
        category, *others = (word.strip() for word in line.split(","))
        for word in (category, *others):
            tag = vocabulary.resolve(word)
            if tag is not None:
                found.setdefault(tag.name, category)
    named = dict(found)
    for tag in vocabulary:
        for name in (tag.name, *tag.aliases):
            head = vocabulary.resolve(name.split()[-1])
            if head is not None and head.name in named:
                found.setdefault(tag.name, named[head.name])
    return found


def sugarcrepe(parser: CaptionParser, data: Path) -> None:
    """How often a caption that is wrong in one thing or attribute gives other tags than the right one."""
    table = pq.read_table(data / "captions/sugarcrepe.parquet").to_pylist()
    right = parser.parse([row["caption"] for row in table])
    wrong = parser.parse([row["negative_caption"] for row in table])
    pairs, differ = Counter(row["kind"] for row in table), Counter()
    for row, one, other in zip(table, right, wrong, strict=True):
        differ[row["kind"]] += {mention.tag for mention in one} != {mention.tag for mention in other}
    for kind, count in sorted(pairs.items()):
        say("caption_quality", f"sugarcrepe: {kind}: share with other tags", differ[kind] / count)
        say("caption_quality", f"sugarcrepe: {kind}: pairs", count, "pairs")


def names(found: Iterable[str]) -> str:
    return ", ".join(sorted(found)) or "-"


def ratio(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "    -"


def write(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
