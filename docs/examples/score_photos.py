"""Scores the run of photos.yaml against the true COCO categories of the photographs, step by step.

    python docs/examples/score_photos.py runs/photos ../shared/data/vocab/coco80_synonyms.txt

The second file has a line for each category: its name, then words that stand for it, comma-separated.
"""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import Score, evaluate
from tagmill.tag_system.vocabulary import Vocabulary


def read_classes(synonyms: str, vocabulary: Vocabulary) -> dict[str, str]:
    """Map tags to the category that they stand for."""
    classes: dict[str, str] = {}
    for line in Path(synonyms).read_text(encoding="utf-8").splitlines():
        category, *words = [word.strip() for word in line.split(",")]
        for name in (category, *words):
            tag = vocabulary.resolve(name)
            if tag is not None:
                classes.setdefault(tag.name, category)
    return classes


def true_categories(example: dict[str, Any]) -> set[str]:
    """Read an example's true categories from its source's JSON."""
    return set(json.loads(example["meta"])["categories"])


def score(run: str, synonyms: str) -> dict[str, Score]:
    """Score a run with the built-in vocabulary."""
    scores = evaluate(RunFolder(run), true_categories, read_classes(synonyms, Vocabulary.load()))
    return {step: found.micro() for step, found in scores.items()}


def main() -> None:
    """Print the scores."""
    table = Table("after", "precision", "recall", "F1", "tags")
    for step, found in score(*sys.argv[1:]).items():
        numbers = (found.precision, found.recall, found.f1)
        table.add_row(step, *(f"{number:.3f}" for number in numbers), str(found.right + found.wrong))
    Console().print(table)


if __name__ == "__main__":
    main()
