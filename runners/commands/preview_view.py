"""Prints how the first examples of a run's inputs would be read."""

import json
from collections.abc import Iterator

from rich.console import Console

from tagmill.pipeline.run import Driver
from tagmill.pipeline.study.preview import InputPreview, Record, preview
from tagmill.tag_system.label_names import LabelNames

SHOWN = 3
WIDTH = 100


def show_preview(console: Console, driver: Driver, count: int) -> None:
    """Print the first `count` examples of each input, and what was understood of their fields."""
    labels = LabelNames.load(driver.vocabulary, driver.config.label_map)
    for found in preview(driver.config.inputs, driver.ingest, labels, count):
        for line in preview_lines(found):
            console.print(line, highlight=False, markup=False)


def preview_lines(found: InputPreview) -> Iterator[str]:
    """Say how the first examples of an input are read: its fields, its examples, and what is rejected."""
    excluded = f", {found.excluded} of them excluded" if found.excluded else ""
    head = f"{found.format}, {found.sources} sources, the first {found.count} examples{excluded}"
    yield f"input {found.name}: {head}"
    seen = ", ".join(f"{name} {count}" for name, count in sorted(found.seen.items())) or "none"
    used = ", ".join(f"{name} {count}" for name, count in sorted(found.used.items())) or "none"
    yield f"  fields: {seen}; captions from: {used}"
    for example in found.examples:
        size = f"{example['width']} x {example['height']}"
        yield f"  {example['key']}: {example['format']} {size}, {example['split']}"
        yield from (f"    caption: {_cut(text)}" for text in example["captions"][:SHOWN] if text is not None)
        if len(example["captions"]) > SHOWN:
            yield f"    and {len(example['captions']) - SHOWN} captions more"
        if example["labels"]:
            yield f"    labels: {', '.join(map(_label, example['labels'][: 3 * SHOWN]))}"
        if json.loads(example["meta"] or "{}"):
            yield f"    meta: {_cut(example['meta'])}"
    for letter in found.dead:
        what = "" if letter["unit"] == "example" else f"{letter['unit']} "
        yield f"  {letter['key']}: {what}rejected, {letter['reason']}: {_cut(letter['detail'])}"


def _label(label: Record) -> str:
    tag = label["tag"]
    stands_for = "no tag" if tag is None else tag
    box = "" if label["box"] is None else " with a box"
    return label["name"] + ("" if tag == label["name"] else f" ({stands_for})") + box


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
