"""The kinds of labels that `engine_effect.py` compares, and what was chosen for each on the tuning range."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cleaning_rules import CENTRES
from effect_data import Labels, Work, demo_stages, labels_of, tag_stage, true_labels

from tagmill.models.training.targets import TagChoice
from tagmill.pipeline.study.tuning import GRIDS, THRESHOLDS, Labelled, tune
from tagmill.tag_system.decisions import PaperRule, Policy

ARMS = {
    "parsed": "tags parsed from captions",
    "bootstrap": "and a tagger trained on those",
    "tagger": "and the demo's tagger",
    "eager": "and more of the tagger",
    "paper": "cleaned, rule `paper`",
    "adaptive": "cleaned, rule `adaptive`",
    "truth": "the truth",
}

KEEP_ALL = PaperRule(outlier_fraction=0, region_threshold=0)


@dataclass(frozen=True)
class Arms:
    """Makes the labels of each arm, in `FOLDER/labels`, unless they are there."""

    work: Work

    def labels(self, arm: str) -> Path:
        """Give the file with an arm's labels."""
        path = self.work.folder / "labels" / f"{arm}.npz"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            self._make(arm).save(path)
        return path

    def _make(self, arm: str) -> Labels:
        if arm == "truth":
            return true_labels(Labels.load(self.labels("parsed")).keys, self.work.truth("engine"))
        if arm == "bootstrap":
            stages, choice = self._second_round, self._bootstrap_choice()
            self.work.run("bootstrap", "engine", stages, "train")
            return labels_of(self.work.shards("bootstrap"), choice)
        choice, centres = self._choice(arm)
        self.work.run("engine", "engine", demo_stages(), "train", centres)
        return labels_of(self.work.shards("engine"), choice)

    def _choice(self, arm: str) -> tuple[TagChoice, int | None]:
        """Say which of a run's decisions an arm learns from, and how many centres a tag has in that run."""
        if arm == "parsed":
            return TagChoice(policy=self._policy, sources=("given", "parsed"), regions=False), None
        if arm == "eager":  # what `adaptive` has to clean
            return TagChoice(policy=self._policy, regions=False), None
        if arm == "adaptive":
            return TagChoice(policy=self._policy), None
        if arm == "tagger":
            found = self.chosen("tagger", self._tune_tagger)
            changed = self._policy.model_copy(update={"tagger_threshold": found["threshold"]})
            return TagChoice(policy=changed, regions=False), None
        found = self.chosen("paper", self._tune_paper)
        return TagChoice(policy=Policy.model_validate(found["policy"])), int(found["centres"])

    def _bootstrap_choice(self) -> TagChoice:
        found = self.chosen("bootstrap", self._tune_bootstrap)
        return TagChoice(policy=Policy(tagger_threshold=found["threshold"]), regions=False)

    @cached_property
    def _policy(self) -> Policy:
        """The demo's own policy, whose rule is `adaptive`."""
        return Policy.model_validate(demo_stages()["clean"]["policy"])

    @property
    def _second_round(self) -> dict[str, Any]:
        return tag_stage(self.work.folder / "tagger")

    def chosen(self, name: str, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Give what was chosen for an arm on the tuning range, or choose it."""
        path = self.work.folder / "chosen.json"
        known: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
        if name not in known:
            known[name] = choose()
            path.write_text(json.dumps(known, indent=1) + "\n")
        return known[name]

    def _tune_tagger(self) -> dict[str, Any]:
        self.work.run("tuning", "tuning", demo_stages(), "train")
        return _best_threshold(self.work.evidence("tuning", "tuning"))

    def _tune_paper(self) -> dict[str, Any]:
        start = self._policy.model_copy(update={"rule": "paper"})
        tried = []
        for centres in CENTRES:
            self.work.run("tuning", "tuning", demo_stages(), "train", centres)
            best, f1 = tune(
                self.work.evidence("tuning", "tuning"), start, GRIDS["paper"], lambda score: score.f1
            )
            tried.append({"f1": f1, "centres": centres, "policy": best.model_dump()})
        best_found = max(tried, key=lambda one: float(one["f1"]))
        return best_found | {"f1_by_centres": {one["centres"]: one["f1"] for one in tried}}

    def _tune_bootstrap(self) -> dict[str, Any]:
        self.work.run("tuning-bootstrap", "tuning", self._second_round, "train")
        return _best_threshold(self.work.evidence("tuning-bootstrap", "tuning"))


def _best_threshold(data: Labelled) -> dict[str, Any]:
    """Find the tagger threshold with the best F1 where nothing is cleaned."""
    f1 = {
        threshold: data.score(Policy(rule="paper", tagger_threshold=threshold, paper=KEEP_ALL)).f1
        for threshold in THRESHOLDS
    }
    best = max(f1, key=lambda threshold: f1[threshold])
    return {"threshold": best, "f1": f1[best]}
