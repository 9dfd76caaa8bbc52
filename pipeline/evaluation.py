"""Tags of a run against a truth, after each step that changes them: parsed, with the tagger's, cleaned."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.errors import ConfigError
from tagmill.transforms import parts

STEPS = ("parse", "tag", "clean")
"""After parse: tags that captions mention. After tag: also those that the tagger proposes. After clean: those
that were kept."""


@dataclass
class Score:
    """Tags counted against the truth, over all images."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        """Share of the tags that are true."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Share of the truth that is tagged."""
        return self.right / max(1, self.right + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.right / max(1, 2 * self.right + self.wrong + self.missed)

    def add(self, found: set[str], true: set[str]) -> None:
        """Count one image."""
        self.right += len(found & true)
        self.wrong += len(found - true)
        self.missed += len(true - found)


def tags_by_step(run: RunFolder) -> Iterator[tuple[dict[str, Any], dict[str, set[str]]]]:
    """Give every living example of a finished run (ingest's record), with its tags after each step."""
    ingest, clean = (_folder(run, stage) for stage in ("ingest", "clean"))
    record = run.read_record("clean", run.current("clean") or "")
    for name in record.parts if record else ():
        decided = parts.read_part(parts.part_uri(clean, name))
        examples = parts.read_part(parts.part_uri(ingest, name))
        for example in examples.records:
            if example["row"] not in decided.header.gone:
                yield example, _steps(decided.of_row(example["row"]))


def _folder(run: RunFolder, stage: str) -> str:
    generation = run.current(stage)
    if generation is None:
        raise ConfigError(f"{run.root}: the stage {stage} was not run yet")
    return run.generation(stage, generation)


def _steps(decisions: list[dict[str, Any]]) -> dict[str, set[str]]:
    return {
        "parse": {d["tag"] for d in decisions if d["parsed"]},
        "tag": {d["tag"] for d in decisions if d["rule"] != "not_proposed"},
        "clean": {d["tag"] for d in decisions if d["verdict"] == "kept"},
    }


def evaluate(
    run: RunFolder, truth: Callable[[dict[str, Any]], set[str]], classes: Mapping[str, str]
) -> dict[str, Score]:
    """Score a run's tags after each step against `truth(example)`, a set of class names.

    `classes` maps tags to class names (several tags may stand for one); other tags are not scored.
    """
    scores = {step: Score() for step in STEPS}
    for example, steps in tags_by_step(run):
        true = truth(example)
        for step, tags in steps.items():
            scores[step].add({classes[tag] for tag in tags if tag in classes}, true)
    return scores
