"""Chooses the constants of a policy by a labelled dataset: it decides on the evidence of a run many times.

Nothing is run: clean's parts hold all evidence, and `decide` is pure. Constants that were tuned on a dataset
must be measured on another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import Score, Truth
from tagmill.pipeline.study.example import decided_examples
from tagmill.tag_system.decisions import Evidence, Policy, decide, own_rule

EVIDENCE = tuple(field.name for field in fields(Evidence))

Grid = Mapping[str, Sequence[Any]]
"""Values to try by constant, as `adaptive.weak_box`."""

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
"""Thresholds of the tagger to try."""

_STEPS = tuple(round(0.05 * step, 2) for step in range(20))

GRIDS: Mapping[str, Grid] = {
    "adaptive": {
        "tagger_threshold": THRESHOLDS,
        "adaptive.weak_box": _STEPS[:14],
        "adaptive.strong_box": _STEPS,
        "adaptive.margin": (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.3),
        "adaptive.outlier_rank": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
    },
    "paper": {
        "tagger_threshold": THRESHOLDS,
        "paper.region_threshold": (0.0, 0.05, 0.1, 0.15, 0.2, 0.25),
    },
}
"""What to try for each built-in rule; `paper` keeps the share of outliers that its publication has."""


def grid_of(policy: Policy) -> Grid:
    """Give what to try for the rule of a policy: of one's own rule, the options that its `grid` names.

    Raises ConfigError if the rule cannot be had.
    """
    if policy.rule in GRIDS:
        return GRIDS[policy.rule]
    options: Grid = getattr(own_rule(policy), "grid", {})
    return {"tagger_threshold": THRESHOLDS} | {f"options.{name}": values for name, values in options.items()}


@dataclass(frozen=True)
class Labelled:
    """Candidates with the truth about each, how many true tags are not candidates, and of how many images."""

    evidence: list[Evidence]
    true: list[bool]
    missed: int
    images: int = 0

    def score(self, policy: Policy) -> Score:
        """Count what the policy keeps against the truth."""
        kept = [decide(evidence, policy).verdict == "kept" for evidence in self.evidence]
        right = sum(k and t for k, t in zip(kept, self.true, strict=True))
        return Score(right, sum(kept) - right, self.missed + sum(self.true) - right)


def labelled(
    run: RunFolder, truth: Truth, kind: str | None = None, wanted: Callable[[str], bool] | None = None
) -> Labelled:
    """Collect the candidates of a kind, or of all, from the images of a finished run that the truth has.

    Tags that the truth does not know are left out, and images whose key is not `wanted`.
    """
    evidence, true, missed, images = [], [], 0, 0
    for example, decisions in decided_examples(run):
        shown = truth.of(example)
        if shown is None or (wanted and not wanted(example["key"])):
            continue
        images += 1
        known = {tag for tag in truth.known(example) if kind in (None, truth.kinds.get(tag))}
        for record in decisions:
            if record["tag"] in known:
                evidence.append(Evidence(**{name: record[name] for name in EVIDENCE}))
                true.append(record["tag"] in shown)
        missed += len((shown & known) - {record["tag"] for record in decisions})
    return Labelled(evidence, true, missed, images)


def recall_at(precision: float) -> Callable[[Score], float]:
    """Make the goal of the highest recall at a precision; below it the more precise policy is the better."""
    return lambda score: 1 + score.recall if score.precision >= precision else score.precision


def tune(
    data: Labelled, start: Policy, grid: Grid, goal: Callable[[Score], float], rounds: int = 3
) -> tuple[Policy, float]:
    """Better one constant after the other, as long as any helps; returns the policy and what it reaches.

    Raises ValueError for a constant that no policy has.
    """
    best, reached = start, goal(data.score(start))
    for _ in range(rounds):
        before = reached
        for name, values in grid.items():
            for policy in _variants(best, name, values):
                found = goal(data.score(policy))
                if found > reached:
                    best, reached = policy, found
        if reached == before:
            break
    return best, reached


def _variants(policy: Policy, name: str, values: Sequence[Any]) -> Iterator[Policy]:
    section, _, constant = name.rpartition(".")
    if section == "options":
        for value in values:
            yield policy.model_copy(update={"options": policy.options | {constant: value}})
        return
    rules = getattr(policy, section) if section else policy
    if constant not in type(rules).model_fields:
        raise ValueError(f"a policy has no constant {name}")
    for value in values:
        changed = rules.model_copy(update={constant: value})
        yield policy.model_copy(update={section: changed}) if section else changed
