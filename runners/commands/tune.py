"""`tagmill tune`: the constants of a policy that suit a truth, chosen by one half of its images.

Nothing is run: the evidence of a finished run is decided again and again. The other half checks it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import yaml
from rich.console import Console

from tagmill.models.training.calibration import held_out
from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.study.evaluation import Score
from tagmill.pipeline.study.tuning import GRIDS, Labelled, grid_of, labelled, recall_at, tune
from tagmill.runners.commands.inspection import open_run
from tagmill.runners.commands.score import truth_of
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.decisions import Policy
from tagmill.tag_system.kinds import KINDS


@dataclass(frozen=True)
class TuningRequest:
    """What is to be tuned, and for what: `goal` is `f1` or `precision=P`. None: the run's rule, all kinds.

    Raises ConfigError for a goal, a rule or a kind that is not one.
    """

    run: str
    truth: str
    goal: str = "f1"
    rule: str | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        self.measure()
        if self.rule is not None and self.rule not in GRIDS and ":" not in self.rule:
            known = ", ".join(GRIDS)
            raise ConfigError(
                f"--rule {self.rule}: a rule is one of {known} or your own as package.module:Class"
            )
        if self.kind not in (None, *KINDS):
            raise ConfigError(f"--kind {self.kind}: a kind is one of {', '.join(KINDS)}")

    def measure(self) -> Callable[[Score], float]:
        """Give what is to be as high as it can be."""
        name, _, value = self.goal.partition("=")
        try:
            if name == "precision" and 0 < float(value) <= 1:
                return recall_at(float(value))
        except ValueError:
            pass
        if self.goal != "f1":
            raise ConfigError(f"--goal {self.goal}: write f1, or precision=0.95 for the best recall there")
        return lambda score: score.f1


def show_tuned(console: Console, request: TuningRequest) -> None:
    """Print a policy as YAML, with its scores on the images it was not chosen by as comments.

    Raises ConfigError if a half of the images has no tag to score.
    """
    run = open_run(request.run)
    policy = RunConfig.model_validate(run.saved_config() or {}).clean.policy
    truth = truth_of(run, request.truth)
    fitting = labelled(run, truth, request.kind, lambda key: not is_held_out(key))
    checking = labelled(run, truth, request.kind, is_held_out)
    if not any(fitting.true) or not any(checking.true):
        raise ConfigError(
            f"{request.truth} labels too few images of {request.run}: each half needs a tag that is true"
        )
    start = policy.under(request.rule or policy.rule)
    goal = request.measure()
    best, _ = tune(fitting, start, grid_of(start), goal)
    for line in _comments(request, fitting, checking, policy, best):
        console.print(f"# {line}", markup=False, highlight=False)
    found = {"clean": {"policy": best.model_dump(mode="json", exclude=best.idle())}}
    for line in yaml.safe_dump(found, sort_keys=False).splitlines():
        console.print(line, highlight=False)


def is_held_out(key: str) -> bool:
    """Tell whether an image is of the half that nothing is chosen by: by its key alone."""
    return bool(held_out([key], 0.5)[0])


def _comments(
    request: TuningRequest, fitting: Labelled, checking: Labelled, policy: Policy, best: Policy
) -> list[str]:
    goal, before, after = request.measure(), checking.score(policy), checking.score(best)
    lines = [
        f"chosen on {fitting.images:,} images for {request.goal}; on the {checking.images:,} others:",
        f"before: {_said(before)}",
        f"after:  {_said(after)}",
    ]
    if request.goal != "f1" and goal(fitting.score(best)) < 1:
        lines.append("no constants that were tried reach this precision; these come nearest")
    if best == policy:
        lines.append("no other constants do better: the policy is that of the run")
    elif goal(after) <= goal(before):
        lines.append("the constants do not help on these: label more images, or keep the policy of the run")
    return lines


def _said(score: Score) -> str:
    return (
        f"precision {score.precision:.3f}, recall {score.recall:.3f}, F1 {score.f1:.3f} "
        f"({score.right:,} right, {score.wrong:,} wrong, {score.missed:,} missed)"
    )
