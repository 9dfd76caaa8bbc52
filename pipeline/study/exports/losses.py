"""What formats cannot say, and how often an example has it; and the file that tells of it."""

from collections import Counter
from collections.abc import Callable

from tagmill.pipeline.study.exports.chosen import ChosenExample

LOST = "LOST.md"


def _evidence(one: ChosenExample) -> int:
    return sum(len(tag.record.evidence) for tag in one.tags)


def _scores(one: ChosenExample) -> int:
    return sum(len(tag.boxes) + (tag.score is not None) for tag in one.tags)


SUBJECTS: dict[str, tuple[str, Callable[[ChosenExample], int]]] = {
    "captions": ("captions", lambda one: len(one.sample.captions)),
    "mentions": (
        "places of tags in captions",
        lambda one: sum(len(caption.mentions) for caption in one.sample.captions),
    ),
    "labels": ("labels that the source gave", lambda one: len(one.sample.labels)),
    "label boxes": (
        "boxes of labels that the source gave",
        lambda one: sum(label.box is not None for label in one.sample.labels),
    ),
    "unboxed tags": (
        "tags without a box: the format has boxes only",
        lambda one: sum(not tag.boxes for tag in one.tags),
    ),
    "boxes": ("boxes of tags", lambda one: sum(len(tag.boxes) for tag in one.tags)),
    "further boxes": (
        "boxes of a tag behind its best one",
        lambda one: sum(max(0, len(tag.boxes) - 1) for tag in one.tags),
    ),
    "scores": ("scores of the tagger and of boxes", _scores),
    "verdicts": ("verdicts: chosen tags look all alike", lambda one: len(one.tags)),
    "reasons": ("reasons of verdicts: the rule, and what it rests on", lambda one: len(one.tags)),
    "sources": ("counts of who names a tag: labels, captions, probes", lambda one: len(one.tags)),
    "weak boxes": ("boxes that score less than asked for (`--box-score`)", lambda one: one.boxes_under),
    "evidence": ("entries of evidence behind verdicts", _evidence),
    "implied": (
        "tags that are implied, or confirmed to be absent",
        lambda one: len(one.sample.implied or ()) + len(one.sample.absent or ()),
    ),
    "meta": ("examples with other fields of the source (`meta`)", lambda one: one.sample.meta != "{}"),
    "images": ("images: they stay in the shards", lambda one: 1),
}
"""By a short name: the sentence that tells of it, and how much of it one example has."""


def told(title: str, chosen: list[str], lost: Counter[str]) -> str:
    """Write the text that tells what is not in an export: what was not chosen, and what could not be said."""
    rows = [f"| {sentence} | {count:,} |" for sentence, count in lost.items() if count]
    table = ["| what | how many |", "|---|---|", *rows] if rows else ["Nothing."]
    lines = [f"# What is not in this export: {title}", "", "Chosen were:", ""]
    lines += [f"- {line}" for line in chosen]
    lines += ["", "What the format cannot say as the dataset has it:", "", *table]
    return "\n".join(lines) + "\n"
