"""How well found tags agree with annotated captions."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tagmill.pipeline.study.evaluation import Score
from tagmill.tag_system.parser import CaptionParser


class Marks(NamedTuple):
    """The tags of one caption: found rightly, missed, found wrongly."""

    hits: frozenset[str]
    missed: frozenset[str]
    wrong: frozenset[str]


def read_captions(path: Path) -> list[dict]:
    """The annotated captions of a file, a JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mark(parser: CaptionParser, captions: Sequence[dict]) -> list[Marks]:
    """Compare the parser's tags with the annotated ones; the twin of a name in RAM's list is that name."""
    marks = []
    for row, mentions in zip(captions, parser.parse([row["caption"] for row in captions]), strict=True):
        found = {mention.tag.removesuffix(" (2)") for mention in mentions}
        gold, optional = frozenset(row["gold"]), frozenset(row["optional"])
        marks.append(Marks(gold & found, gold - found, frozenset(found) - gold - optional))
    return marks


def scores(marks: Sequence[Marks]) -> Score:
    """Precision, recall and F1 over all tags of all captions."""
    hits, missed, wrong = (sum(len(one[i]) for one in marks) for i in range(3))
    return Score(hits, wrong, missed)


def interval(marks: Sequence[Marks], rounds: int = 1000) -> tuple[float, float]:
    """The 95 % bootstrap interval of F1 over captions."""
    draw = random.Random(0)
    found = sorted(scores(draw.choices(marks, k=len(marks))).f1 for _ in range(rounds))
    return found[int(0.025 * rounds)], found[int(0.975 * rounds)]
