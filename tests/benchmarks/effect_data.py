"""Scenes, runs of the engine and labels for `engine_effect.py`; what lies in its folder is not made again."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from demo_recipe import corpus
from demo_recipe.sprites import Sprites
from demo_recipe.things import things
from demo_recipe.world import World
from tagmill.models.ram import config as configs
from tagmill.models.ram.config import RamConfig
from tagmill.models.training.batches import Batch
from tagmill.models.training.data import DataConfig, open_loader
from tagmill.models.training.labels import read_truth
from tagmill.models.training.targets import Preset, TagChoice
from tagmill.models.training.views import PlainView, View
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study import evaluation
from tagmill.pipeline.study.tuning import Labelled, labelled
from tagmill.runners.commands.demo import embedded
from tagmill.runners.commands.demo_config import demo_models
from tagmill.tag_system.shard_contract import Split

TAGGER = embedded() / "tagger"
THINGS = len(things())
RARE = [thing.mention_rate < 0.1 for thing in things()]  # "rarely" is 0.08
"""Which of the first `THINGS` classes captions hardly ever name."""

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Labels:
    """What a training is told of its images, by the order of their keys: two tables [N, classes]."""

    keys: NDArray[np.str_]
    targets: Bits
    known: Bits

    def save(self, path: Path) -> None:
        """Write a file that is whole or not there."""
        aside = path.with_suffix(".writing.npz")
        np.savez_compressed(aside, keys=self.keys, targets=self.targets, known=self.known)
        aside.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Labels":
        """Read what was saved."""
        with np.load(path) as found:
            return cls(found["keys"], found["targets"], found["known"])


@dataclass(frozen=True)
class Work:
    """The benchmark's folder: where it draws, runs and keeps, with how many worker processes it runs."""

    folder: Path
    workers: int

    def scenes(self, name: str) -> Path:
        """Name the folder of a range's scenes."""
        return self.folder / "scenes" / name

    def truth(self, name: str) -> Path:
        """Name the truth of a range's scenes."""
        return self.scenes(name) / corpus.TRUTH

    def draw(self, world: World | None, name: str, numbers: range) -> None:
        """Draw the scenes of a range with their captions and truth."""
        folder = self.scenes(name)
        if not folder.exists():
            if world is None:
                raise SystemExit(f"{folder} is not there yet: name by --sprites what it is drawn with")
            aside = folder.with_name(f"{name}.writing")
            corpus.write(world, numbers, aside)
            aside.rename(folder)

    def run(
        self, name: str, scenes: str, stages: Mapping[str, Any], split: Split, centres: int | None = None
    ) -> None:
        """Run the engine on scenes, with `centres` clusters a tag (None: as many as suit its regions)."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self._config(name, scenes, stages, split), sort_keys=False))
        command = [sys.executable, "-m", "tagmill.runners.cli", "run", str(path)]
        command += ["--workers", str(self.workers)]
        if centres is not None:
            command += ["--set", f"cluster.k={centres}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def shards(self, name: str) -> Path:
        """Find the dataset that a run made last."""
        run = RunFolder(str(self.folder / "runs" / name))
        return Path(run.path("shards", run.current("shards") or ""))

    def evidence(self, name: str, scenes: str) -> Labelled:
        """Collect a run's evidence on things, with the truth about each candidate."""
        run = RunFolder(str(self.folder / "runs" / name))
        return labelled(run, evaluation.read_truth(str(self.truth(scenes))), "object")

    def _config(self, name: str, scenes: str, stages: Mapping[str, Any], split: Split) -> dict[str, Any]:
        source = {"name": "scenes", "format": "webdataset", "split": split}
        return {
            "run": str(self.folder / "runs" / name),
            "inputs": [{**source, "path": str(self.scenes(scenes) / "scenes-*.tar")}],
            "part_size": 250,
            "threads": 1,
            **stages,
            "shards": {"size": 1000},
        }


def open_world(sprites: str | None, font: str | None) -> World | None:
    """Open what scenes are drawn with; None without sprites."""
    if sprites is None:
        return None
    return World(Sprites(Path(sprites) / "fluent3d.tar", Path(font) if font else None))


def demo_stages() -> dict[str, Any]:
    """Give the model stages of the demo's config, in larger batches."""
    stages: dict[str, Any] = yaml.safe_load(demo_models(embedded()))
    stages["tag"]["batch_size"] = stages["localize"]["batch_size"] = 50
    return stages


def tag_stage(tagger: Path) -> dict[str, Any]:
    """Give the one stage of a run that captions and a tagger tag, and nothing checks."""
    return {"tag": {"model": "ram", "options": {"path": str(tagger)}, "batch_size": 50}}


def batches(folder: Path, split: Split, config: RamConfig, tags: Any, view: View | None) -> Iterator[Batch]:
    """Read all samples of a dataset by the trainer's loader, one a batch: none is left out."""
    datasets = [{"path": str(folder), "tags": tags}]
    data = DataConfig.model_validate({"datasets": datasets, "batch_size": 1, "workers": 0})
    yield from open_loader(data, config, split, view=view)


def labels_of(folder: Path, tags: Preset | TagChoice) -> Labels:
    """Decide on every tag of a dataset as a training would."""
    config = configs.read(TAGGER)
    blank = PlainView(config)  # of one image: what is asked here is labels
    first: list[Any] = []

    def view(image: Any, seed: int) -> Any:
        if not first:
            first.append(blank(image, seed))
        return first[0]

    found = [(b.ids[0][1], b.targets[0], b.known[0]) for b in batches(folder, "train", config, tags, view)]
    found.sort(key=lambda row: row[0])
    targets, known = (np.array([row[at].numpy() > 0 for row in found]) for at in (1, 2))
    return Labels(np.array([row[0] for row in found]), targets, known)


def true_labels(keys: NDArray[np.str_], truth: Path) -> Labels:
    """Take the truth about images; nothing of it is unknown."""
    labels = read_truth(truth, configs.read(TAGGER).classes, str)
    targets = np.array([labels.find(key) for key in keys.tolist()]) > 0
    return Labels(keys, targets, np.ones_like(targets))


def quality(labels: Labels, truth: Labels) -> tuple[float, float]:
    """Precision and recall of the things that labels name; what they mask counts as not named."""
    said, true = labels.targets[:, :THINGS], truth.targets[:, :THINGS]
    right = (said & true).sum()
    return float(right / said.sum()), float(right / true.sum())
