"""What the data engine is worth to a model that is trained on its tags, where the truth is known.

    PYTHONPATH=tests/support python tests/benchmarks/engine_effect.py --sprites DIR [--font FILE] --out FOLDER

draws scenes of the demo world, whose captions hardly ever name every fifth thing, runs the engine on
8,000 of them, and trains the demo's small RAM++ on each kind of labels, in equal steps and with the same
seeds, to be measured on 2,000 other scenes. DIR holds fluent3d.tar, FILE is a colour emoji font with bitmaps
(see models/demo/data/README.md). Everything is kept in FOLDER, and the command goes on where it was stopped;
there it leaves table.md and results.json.

Thresholds of taggers and the constants of `paper`, its number of centres among them, are those with the
best F1 of labels on 4,000 scenes of a third range; `adaptive` is that of the demo's config, whose constants
came from there as well. No arm but `truth` sees the truth about what it learns from.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from effect_arms import ARMS, Arms
from effect_data import Labels, Work, open_world, quality
from effect_student import student, write_maps
from effect_table import MEASURES, arms_table, differences, pairs_table, shares
from rich.console import Console

from demo_recipe.world import RANGES

CONSOLE = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sprites")
    parser.add_argument("--font")
    parser.add_argument("--scenes", type=int, default=8_000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1, help="of the engine, and of trainings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    work = Work(options.out.absolute(), options.processes)
    _draw(work, options.sprites, options.font, options.scenes)
    arms, plan = Arms(work), Plan(work, options.steps, range(options.seeds))
    labels = {arm: arms.labels(arm) for arm in ARMS if arm != "bootstrap"}
    _maps(work)
    plan.train({"parsed": labels["parsed"]}, [0])
    labels["bootstrap"] = arms.labels("bootstrap")
    plan.train(labels, plan.seeds)
    _write(plan, labels)


def _draw(work: Work, sprites: str | None, font: str | None, scenes: int) -> None:
    """Draw three ranges of scenes that share none; the engine's begins with those of the demo."""
    world, start = open_world(sprites, font), RANGES["engine"].start
    work.draw(world, "engine", range(start, start + scenes))
    for name in ("tuning", "test"):
        work.draw(world, name, RANGES[name])


def _maps(work: Work) -> None:
    """Bring the test scenes into shards, captions alone, and compute the trunk's maps of both datasets."""
    for name, split in (("engine", "train"), ("test", "test")):
        path = work.folder / f"maps-{name}.npz"
        if not path.exists():
            if name == "test":
                work.run("test", "test", {}, split)
            CONSOLE.print(f"maps of the trunk: {name}")
            write_maps(work.shards(name), split, path)


class Plan:
    """The trainings, each with a file of results."""

    def __init__(self, work: Work, steps: int, seeds: Sequence[int]) -> None:
        self.work, self.steps, self.seeds = work, steps, seeds

    def result(self, arm: str, seed: int) -> Path:
        """Name the file of a training's results."""
        return self.work.folder / "results" / f"{arm}-{seed}.json"

    def train(self, labels: dict[str, Path], seeds: Iterable[int]) -> None:
        """Do the trainings that are not done, all arms of a seed before the next seed."""
        self.result("", 0).parent.mkdir(exist_ok=True)
        wanted = [(arm, seed) for seed in seeds for arm in labels if not self.result(arm, seed).exists()]
        folder = self.work.folder
        data = folder / "maps-engine.npz", folder / "maps-test.npz", self.work.truth("test")
        with ProcessPoolExecutor(self.work.workers) as pool:
            jobs = {
                pool.submit(student, *data, labels[arm], self.steps, seed): (arm, seed)
                for arm, seed in wanted
            }
            for job in as_completed(jobs):
                found = job.result()
                path = self.result(*jobs[job])
                path.with_suffix(".writing").write_text(json.dumps(found, indent=1) + "\n")
                path.with_suffix(".writing").rename(path)
                figures = ", ".join(f"{found[measure]:.4f} {name}" for measure, name in MEASURES.items())
                CONSOLE.print(f"{jobs[job][0]}, seed {jobs[job][1]}: mAP {figures}")

    def figures(self) -> dict[str, dict[str, list[float]]]:
        """Read what each arm reached, seed by seed, by measure."""
        read = {arm: [json.loads(self.result(arm, seed).read_text()) for seed in self.seeds] for arm in ARMS}
        return {
            measure: {arm: [one[measure] for one in found] for arm, found in read.items()}
            for measure in MEASURES
        }


def _write(plan: Plan, labels: dict[str, Path]) -> None:
    """Write and show what came out."""
    folder, figures = plan.work.folder, plan.figures()
    truth = Labels.load(labels["truth"])
    label_quality = {arm: quality(Labels.load(path), truth) for arm, path in labels.items()}
    chosen = json.loads((folder / "chosen.json").read_text())
    lines = [*arms_table(figures, label_quality), "", *pairs_table(figures)]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    results: dict[str, Any] = {
        "scenes": len(truth.keys),
        "steps": plan.steps,
        "chosen": chosen,
        "labels": {
            arm: dict(zip(("precision", "recall"), found, strict=True))
            for arm, found in label_quality.items()
        },
        "figures": figures,
        "differences": _plain(differences(figures)),
        "shares_of_truth": _plain(shares(figures)),
    }
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    CONSOLE.print("\n".join(lines), markup=False)
    for measure, found in shares(figures).items():
        one = found["adaptive"]
        share = f"{one.mean:.2%} ({one.low:.2%} to {one.high:.2%})"
        CONSOLE.print(f"adaptive reaches {share} of the truth's mAP, {MEASURES[measure]}")


def _plain(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {measure: {name: asdict(one) for name, one in of.items()} for measure, of in found.items()}


if __name__ == "__main__":
    main()
