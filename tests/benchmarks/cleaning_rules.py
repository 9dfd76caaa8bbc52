"""What the rules of `clean` do to object tags whose truth is known.

    python tests/benchmarks/cleaning_rules.py CONFIG TRUTH --paper-threshold X [--plot FILE]

It scores the scenes of CONFIG after each step, and decides on them by the policy in it, by `paper` with
1, 2, 4 and 8 centres a tag and the tagger threshold that suits it best, and by each rule over the range of
its drop rate. Stages run as far as they are not made yet. `tagmill tune` chooses the constants of a rule.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from figures import say

from tagmill.pipeline.config import load_config
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import Score, by_kind, read_truth, score_run
from tagmill.pipeline.study.tuning import Labelled, labelled
from tagmill.tag_system.decisions import Policy, decide

CENTRES = (1, 2, 4, 8)


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("truth")
    parser.add_argument("--paper-threshold", type=float, default=0.65)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    _compare(options.config, options.truth, options.paper_threshold, options.plot)


def _labelled(config: str, truth: str, centres: int | None = None) -> Labelled:
    """Run what is not made, and collect the evidence on object tags."""
    choice = "null" if centres is None else str(centres)
    command = [sys.executable, "-m", "tagmill.runners.cli", "run", config, "--workers", "2"]
    subprocess.run([*command, "--set", f"cluster.k={choice}"], check=True, stdout=subprocess.DEVNULL)
    return labelled(RunFolder(load_config(config).run), read_truth(truth), "object")


def _compare(config: str, truth: str, paper_threshold: float, plot: Path | None) -> None:
    policy = load_config(config).clean.policy
    data = _labelled(config, truth)
    known = read_truth(truth)
    for step, scores in score_run(RunFolder(load_config(config).run), known).items():
        _say(f"after {step}", by_kind(scores, known.kinds)["object"][0])
    _say("adaptive", data.score(policy))
    curves = {"adaptive": list(_sweep_adaptive(data, policy))}
    paper = policy.model_copy(update={"rule": "paper", "tagger_threshold": paper_threshold})
    for centres in CENTRES:
        clustered = _labelled(config, truth, centres)
        _say(f"paper, k = {centres}", clustered.score(paper))
        curves[f"paper, k = {centres}"] = list(_sweep_paper(clustered, paper))
    if plot:
        _draw(curves, plot)


def _say(name: str, score: Score) -> None:
    for what, value in {"precision": score.precision, "recall": score.recall, "F1": score.f1}.items():
        say("cleaning_rules", f"{name}: {what}", value)


Point = tuple[float, Score]


def _sweep_paper(data: Labelled, policy: Policy) -> Iterator[Point]:
    for fraction in [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4]:
        rule = policy.paper.model_copy(update={"outlier_fraction": fraction})
        yield _point(data, policy.model_copy(update={"paper": rule}))


def _sweep_adaptive(data: Labelled, policy: Policy) -> Iterator[Point]:
    """Raise or lower all that a box must reach together, from where nothing is dropped."""
    for share in [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]:
        rule = policy.adaptive
        changed = {
            "weak_box": min(1.0, rule.weak_box * share),
            "strong_box": min(1.0, rule.strong_box * share),
        }
        yield _point(data, policy.model_copy(update={"adaptive": rule.model_copy(update=changed)}))


def _point(data: Labelled, policy: Policy) -> Point:
    verdicts = [decide(evidence, policy) for evidence in data.evidence]
    proposed = [verdict for verdict in verdicts if verdict.rule != "not_proposed"]
    dropped = sum(verdict.verdict != "kept" for verdict in proposed)
    return dropped / max(1, len(proposed)), data.score(policy)


def _draw(curves: dict[str, list[Point]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, what in zip(axes, ("precision", "recall"), strict=True):
        for name, points in curves.items():
            rates = [rate for rate, _ in points]
            axis.plot(rates, [getattr(score, what) for _, score in points], marker="o", ms=3, label=name)
        axis.set(xlabel="share of proposed tags that is dropped", title=what)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
