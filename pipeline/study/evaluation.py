"""Tags of a run against a truth, after each step that changes them: parsed, with the tagger's, cleaned."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import decided_examples
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import KINDS, Kind
from tagmill.transforms import parquet

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

    def __add__(self, other: "Score") -> "Score":
        return Score(self.right + other.right, self.wrong + other.wrong, self.missed + other.missed)


@dataclass
class StepScores:
    """The scores of each class after one step, and how many tags belong to no class and are not scored."""

    classes: dict[str, Score] = field(default_factory=dict)
    unscored: int = 0

    def micro(self, names: Collection[str] | None = None) -> Score:
        """Sum the counts of these classes, or of all: every tag counts alike."""
        return sum((self.classes[name] for name in self._among(names)), Score())

    def macro_f1(self, names: Collection[str] | None = None) -> float:
        """Average the F1 of these classes, or of all, where the truth has them: each class counts alike."""
        true = [score for name in self._among(names) if (score := self.classes[name]).right + score.missed]
        return sum(score.f1 for score in true) / max(1, len(true))

    def _among(self, names: Collection[str] | None) -> list[str]:
        return [name for name in self.classes if names is None or name in names]

    def count(self, found: set[str], true: set[str]) -> None:
        """Count the classes of one image."""
        for name in found | true:
            score = self.classes.setdefault(name, Score())
            score.right += name in found and name in true
            score.wrong += name not in true
            score.missed += name not in found


@dataclass(frozen=True)
class Truth:
    """The true tags of every example, by the key that its source gave it, and the kind of each tag."""

    tags: Mapping[str, frozenset[str]]
    kinds: Mapping[str, Kind]

    def of(self, example: Mapping[str, Any]) -> set[str]:
        """Give the true tags of an ingest row, whose key is `<input>/<key>`. Raises ConfigError."""
        try:
            return set(self.tags[example["key"].partition("/")[2]])
        except KeyError:
            raise ConfigError(
                f"the truth has no row for {example['key']}; is it another dataset's?"
            ) from None


def read_truth(uri: str) -> Truth:
    """Read a truth from Parquet: columns `key`, `tags` and `kinds`, the kind of each tag in the same order.

    Raises ConfigError if the file is not there or has other columns.
    """
    tags: dict[str, frozenset[str]] = {}
    kinds: dict[str, Kind] = {}
    try:
        table = parquet.read_table(uri, ["key", "tags", "kinds"])
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"{uri} is no truth with the columns key, tags and kinds: {error}") from error
    for row in table.to_pylist():
        tags[row["key"]] = frozenset(row["tags"])
        kinds.update(zip(row["tags"], row["kinds"], strict=True))
    return Truth(tags, kinds)


def tags_by_step(run: RunFolder) -> Iterator[tuple[dict[str, Any], dict[str, set[str]]]]:
    """Give every living example of a finished run (ingest's record), with its tags after each step."""
    for example, decisions in decided_examples(run):
        yield example, _steps(decisions)


def _steps(decisions: list[dict[str, Any]]) -> dict[str, set[str]]:
    return {
        "parse": {d["tag"] for d in decisions if d["parsed"]},
        "tag": {d["tag"] for d in decisions if d["rule"] != "not_proposed"},
        "clean": {d["tag"] for d in decisions if d["verdict"] == "kept"},
    }


def evaluate(
    run: RunFolder, truth: Callable[[dict[str, Any]], set[str]], classes: Mapping[str, str]
) -> dict[str, StepScores]:
    """Score a run's tags after each step against `truth(example)`, a set of class names.

    `classes` maps tags to class names (several tags may stand for one); other tags are not scored.
    """
    scores = {step: StepScores() for step in STEPS}
    for example, steps in tags_by_step(run):
        true = truth(example)
        for step, tags in steps.items():
            known = {tag for tag in tags if tag in classes}
            scores[step].count({classes[tag] for tag in known}, true)
            scores[step].unscored += len(tags - known)
    return scores


def by_kind(scores: StepScores, kinds: Mapping[str, Kind]) -> dict[str, tuple[Score, float]]:
    """Give the micro score and the macro F1 of each kind that `kinds` gives to a class, and of `all`."""
    found = {}
    for kind in KINDS:
        names = {name for name, other in kinds.items() if other == kind}
        if names:
            found[kind] = (scores.micro(names), scores.macro_f1(names))
    return found | {"all": (scores.micro(), scores.macro_f1())}
