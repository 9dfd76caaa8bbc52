"""Scores a run's tags against a truth after each step: parsed, with the tagger's, cleaned."""

from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import decided_examples
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import KINDS, Kind
from tagmill.tag_system.truth import read_images
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.clean import Clean
from tagmill.transforms.parse import Parse
from tagmill.transforms.tag import TagStage

STEPS = (Parse.name, TagStage.name, Clean.name)
"""After parse: tags that captions mention. After tag: also those that the tagger proposes. After clean: those
that were kept."""


@dataclass
class Score:
    """Tags counted against the truth, over all images.

    Three counts add up, image by image; scikit-learn wants all images x tags at once for the same numbers.
    """

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
    """The scores of each class after one step, over so many images.

    `unscored` counts the tags that belong to no class, `unlabelled` the images of the run without a truth.
    """

    classes: dict[str, Score] = field(default_factory=dict)
    unscored: int = 0
    images: int = 0
    unlabelled: int = 0

    def micro(self, names: Collection[str] | None = None) -> Score:
        """Sum the counts of these classes, or of all: every tag counts alike."""
        return sum((self.classes[name] for name in self._among(names)), Score())

    def macro_f1(self, names: Collection[str] | None = None) -> float:
        """Average the F1 of these classes, or of all, where the truth has them: each class counts alike."""
        true = [score for name in self._among(names) if (score := self.classes[name]).right + score.missed]
        return sum(score.f1 for score in true) / max(1, len(true))

    def _among(self, names: Collection[str] | None) -> list[str]:
        return [name for name in self.classes if names is None or name in names]

    def count(self, found: AbstractSet[str], true: AbstractSet[str]) -> None:
        """Count the classes of one image."""
        for name in found | true:
            score = self.classes.setdefault(name, Score())
            score.right += name in found and name in true
            score.wrong += name not in true
            score.missed += name not in found


@dataclass(frozen=True)
class Truth:
    """The true tags of images by their key, and the kind of each tag that is known to have one.

    Of an image in `absent` nothing is known but its tags and those there. `names` are all tags of the truth.
    """

    tags: Mapping[str, frozenset[str]]
    kinds: Mapping[str, Kind]
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def names(self) -> frozenset[str]:
        """All tags that the truth knows."""
        return frozenset().union(*self.tags.values(), *self.absent.values())

    def of(self, example: Mapping[str, Any]) -> frozenset[str] | None:
        """Give the true tags of an ingest row; None if the truth does not have it."""
        key = self._key(example)
        return None if key is None else self.tags[key]

    def known(self, example: Mapping[str, Any]) -> frozenset[str]:
        """Give the tags of which the truth says whether the image of an ingest row shows them."""
        key = self._key(example)
        if key is None:
            return frozenset()
        return self.tags[key] | self.absent[key] if key in self.absent else self.names

    def _key(self, example: Mapping[str, Any]) -> str | None:
        """Find an ingest row, whose key is `<input>/<key>`, by either."""
        key: str = example["key"]
        return next((name for name in (key, key.partition("/")[2]) if name in self.tags), None)


def read_truth(uri: str, vocabulary: Vocabulary | None = None) -> Truth:
    """Read a truth, as `tag_system.truth` has it; a vocabulary maps aliases to tags and knows their kinds.

    Raises ConfigError for a file that is not a truth, or names a kind that is not one.
    """

    def name(tag: str) -> str:
        known = vocabulary.resolve(tag) if vocabulary else None
        return known.name if known else tag

    tags: dict[str, frozenset[str]] = {}
    absent: dict[str, frozenset[str]] = {}
    kinds: dict[str, Kind] = {}
    for image in read_images(uri):
        tags[image.key] = frozenset(map(name, image.tags))
        for tag, kind in zip(image.tags, image.kinds, strict=False):
            kinds[name(tag)] = _kind(uri, kind)
        if image.absent is not None:
            absent[image.key] = frozenset(map(name, image.absent))
    truth = Truth(tags, kinds, absent)
    for tag in truth.names - kinds.keys():
        if vocabulary and (known := vocabulary.resolve(tag)):
            kinds[tag] = known.kind
    return truth


def _kind(uri: str, name: str) -> Kind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise ConfigError(f"{uri}: {name!r} is not a kind of tags; the kinds are {', '.join(KINDS)}")


def tags_by_step(run: RunFolder) -> Iterator[tuple[dict[str, Any], dict[str, set[str]]]]:
    """Give every living example of a finished run (ingest's record), with its tags after each step."""
    for example, decisions in decided_examples(run):
        yield example, _steps(decisions)


def _steps(decisions: list[dict[str, Any]]) -> dict[str, set[str]]:
    return {
        Parse.name: {d["tag"] for d in decisions if d["parsed"]},
        TagStage.name: {d["tag"] for d in decisions if d["rule"] != "not_proposed"},
        Clean.name: {d["tag"] for d in decisions if d["verdict"] == "kept"},
    }


def score_run(run: RunFolder, truth: Truth) -> dict[str, StepScores]:
    """Score a run's tags after each step against a truth, over the images that it has.

    Raises ConfigError if it has none of them.
    """
    scores = evaluate(run, truth.of, {tag: tag for tag in truth.names}, truth.known)
    if not scores[Clean.name].images:
        raise ConfigError(f"the truth has no image of {run.root}; is it another dataset's?")
    return scores


def evaluate(
    run: RunFolder,
    truth: Callable[[dict[str, Any]], AbstractSet[str] | None],
    classes: Mapping[str, str],
    known: Callable[[dict[str, Any]], AbstractSet[str]] | None = None,
) -> dict[str, StepScores]:
    """Score a run's tags after each step against `truth(example)`, a set of class names, or None.

    `classes` maps tags to class names (several tags may stand for one); other tags are not scored, nor are
    classes outside `known(example)`.
    """
    scores = {step: StepScores() for step in STEPS}
    for example, steps in tags_by_step(run):
        true = truth(example)
        labelled = known(example) if known else None
        for step, tags in steps.items():
            if true is None:
                scores[step].unlabelled += 1
                continue
            classed = (tag for tag in tags if tag in classes)
            scored = {tag for tag in classed if labelled is None or classes[tag] in labelled}
            scores[step].images += 1
            scores[step].count({classes[tag] for tag in scored}, true)
            scores[step].unscored += len(tags - scored)
    return scores


def by_kind(scores: StepScores, kinds: Mapping[str, Kind]) -> dict[str, tuple[Score, float]]:
    """Give the micro score and the macro F1 of each kind that `kinds` gives to a class, and of `all`."""
    found = {}
    for kind in KINDS:
        names = {name for name, other in kinds.items() if other == kind}
        if names:
            found[kind] = (scores.micro(names), scores.macro_f1(names))
    return found | {"all": (scores.micro(), scores.macro_f1())}
