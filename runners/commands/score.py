"""`tagmill score`: the tags of a run against a truth, after each step, by kind and by tag."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import STEPS, Score, StepScores, Truth, by_kind, read_truth, score_run
from tagmill.runners.commands.fitted import FittedTable, columns_of
from tagmill.runners.commands.inspection import open_run
from tagmill.tag_system.vocabulary import Vocabulary

AFTER = {"parse": "captions alone", "tag": "and the tagger", "clean": "cleaned"}

WORST_TAGS = 20

MEASURES = ("precision", "recall", "F1")
COUNTS = ("right", "wrong", "missed")


def show_score(console: Console, folder: str, truth_file: str, *, per_tag: bool, as_json: bool) -> None:
    """Print how a run's tags compare with a truth, as tables or as one JSON object.

    Raises ConfigError for a truth that cannot be read or has no image of the run.
    """
    run = open_run(folder)
    truth = truth_of(run, truth_file)
    scores = score_run(run, truth)
    if as_json:
        console.print(json.dumps(_summary(scores, truth)), markup=False, highlight=False)
        return
    cleaned = scores["clean"]
    console.print(score_table(scores, truth))
    if per_tag:
        console.print()
        console.print(f"The {WORST_TAGS} tags with the most errors after cleaning", style="bold")
        console.print(_tag_table(cleaned, truth))
    for line in remarks(cleaned):
        console.print(line, style="dim", highlight=False)


def truth_of(run: RunFolder, truth_file: str) -> Truth:
    """Read a truth by the names of the vocabulary of a run. Raises ConfigError."""
    config = RunConfig.model_validate(run.saved_config() or {})
    return read_truth(truth_file, Vocabulary.load(config.vocabulary))


def remarks(scores: StepScores) -> list[str]:
    """Say what was scored, and what was not."""
    lines = [
        f"{scores.images:,} images of the run have a truth, {scores.unlabelled:,} have none",
        "right, wrong, missed: tags of images",
    ]
    if scores.unscored:
        lines.append(f"{scores.unscored:,} kept tags are not scored: the truth does not know them")
    return lines


def score_table(scores: Mapping[str, StepScores], truth: Truth) -> FittedTable:
    """Tabulate precision, recall, F1 and the counts after each step, by kind."""
    table = FittedTable(columns_of(("after", "kind"), (*MEASURES, "macro F1", *COUNTS), cut=("kind",)))
    for step in STEPS:
        kinds = by_kind(scores[step], truth.kinds)
        for place, (kind, (score, macro)) in enumerate(kinds.items()):
            table.add_row(
                AFTER[step] if not place else "",
                kind,
                *_measures(score),
                f"{macro:.3f}",
                *_counts(score),
                style="bold" if kind == "all" else "",
            )
    return table


def _tag_table(scores: StepScores, truth: Truth) -> FittedTable:
    table = FittedTable(columns_of(("tag", "kind"), (*MEASURES, *COUNTS), cut=("tag", "kind")))
    worst = sorted(scores.classes.items(), key=lambda item: (-item[1].wrong - item[1].missed, item[0]))
    for tag, score in worst[:WORST_TAGS]:
        table.add_row(tag, truth.kinds.get(tag, ""), *_measures(score), *_counts(score))
    return table


def _measures(score: Score) -> list[str]:
    return [f"{number:.3f}" for number in (score.precision, score.recall, score.f1)]


def _counts(score: Score) -> list[str]:
    return [str(number) for number in (score.right, score.wrong, score.missed)]


def _summary(scores: Mapping[str, StepScores], truth: Truth) -> dict[str, Any]:
    """Give all numbers for a machine: by step, then by kind and by tag."""
    cleaned = scores["clean"]
    steps = {}
    for step, found in scores.items():
        kinds = by_kind(found, truth.kinds)
        steps[step] = {
            "unscored": found.unscored,
            "kinds": {kind: numbers(score) | {"macro_f1": macro} for kind, (score, macro) in kinds.items()},
            "tags": {tag: numbers(score) for tag, score in sorted(found.classes.items())},
        }
    return {"images": cleaned.images, "unlabelled": cleaned.unlabelled, "steps": steps}


def numbers(score: Score) -> dict[str, float]:
    """Give the counts of a score and what follows from them."""
    return asdict(score) | {"precision": score.precision, "recall": score.recall, "f1": score.f1}
