"""The demo with its own models, on some of its own scenes."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from commands import environment
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import read_truth, score_run
from tagmill.pipeline.study.example import decided_examples
from tagmill.runners.commands.demo import PIECES, Demo, embedded, show_demo
from tagmill.runners.commands.demo_config import demo_models

pytestmark = [
    pytest.mark.package,
    pytest.mark.skipif(not (embedded() / "tagger.onnx").is_file(), reason="the demo's models are not here"),
]

SCENES = 100
NEAR = 1e-4
"""How near a number is to the constant that it is compared with for two backends to differ about it."""

CHILD = """
import sys

HEAVY = {"open_clip", "timm", "torch", "torchvision", "transformers"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
from pathlib import Path
from rich.console import Console
from tagmill.runners.commands.demo import Demo, show_demo
console = Console(file=sys.stdout, soft_wrap=True, width=120)
show_demo(console, Demo(None, sys.argv[2], 0), Path(sys.argv[1]))
print("imported:", sorted(HEAVY & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data with a few of its scenes."""
    data = tmp_path_factory.mktemp("data")
    for path in embedded().iterdir():
        if not path.match("scenes-*.tar"):
            (data / path.name).symlink_to(path)
    with (
        tarfile.open(embedded() / "scenes-000000.tar") as whole,
        tarfile.open(data / "scenes-000000.tar", "w") as some,
    ):
        for member in whole.getmembers()[: 2 * SCENES]:
            some.addfile(member, whole.extractfile(member))
    return data


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A run of the demo in a process that has no torch, and what it printed."""
    run = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-P", "-c", CHILD, str(data), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return RunFolder(str(run)), done.stdout


def test_all_of_the_demo_is_in_the_package():
    assert all(any(embedded().glob(piece)) for piece in PIECES)


def test_every_step_makes_the_tags_better(made: tuple[RunFolder, str]):
    truth = read_truth(str(embedded() / "truth.parquet"))
    scores = score_run(made[0], truth)
    parsed, tagged, cleaned = (scores[step].micro() for step in ("parse", "tag", "clean"))
    assert tagged.recall > parsed.recall + 0.1
    assert cleaned.precision > tagged.precision
    assert cleaned.f1 > tagged.f1 > parsed.f1


def test_it_names_a_picture_and_a_sample(made: tuple[RunFolder, str]):
    run, text = made
    assert Path(run.path("report", "example.png")).is_file()
    assert "tar -xOf" in text


def test_it_runs_without_torch(made: tuple[RunFolder, str]):
    assert made[1].splitlines()[-1] == "imported: []"


def torch_models(data: Path) -> str:
    """The demo's config with the checkpoints that its ONNX files were made of."""
    config = yaml.safe_load(demo_models(data))
    config["tag"] |= {"model": "ram", "options": {"path": str(data / "tagger")}}
    config["localize"] |= {"model": "grounding-dino", "options": {"path": str(data / "grounding-dino")}}
    clip = {"model": f"local-dir:{data / 'clip'}", "template": "a {}"}
    config["embed"] |= {"model": "open-clip", "options": clip}
    return yaml.safe_dump(config)


def decisions(run: RunFolder) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for example, rows in decided_examples(run):
        for row in rows:
            yield (example["key"], row["tag"]), row


def is_near(row: dict[str, Any], policy: dict[str, Any]) -> bool:
    """Whether one of a decision's numbers is so near to its constant that the last digits decide."""
    adaptive = policy["adaptive"]
    margin = (row["other_score"] or 0) - (row["own_score"] or 0)
    pairs = [(row["tagger"], policy[name]) for name in ("tagger_threshold", "unchecked_threshold")]
    pairs += [(row["box_score"], adaptive[name]) for name in ("weak_box", "strong_box")]
    pairs += [(margin, adaptive["margin"])]
    return any(value is not None and abs(value - limit) < NEAR for value, limit in pairs)


@pytest.mark.skipif(not (embedded() / "tagger").is_dir(), reason="the wheel has the ONNX files alone")
def test_onnx_and_torch_decide_alike(made: tuple[RunFolder, str], data: Path, tmp_path: Path):
    show_demo(Console(file=io.StringIO()), Demo(None, str(tmp_path / "run"), 0), data, torch_models)
    policy = yaml.safe_load(demo_models(data))["clean"]["policy"]
    expected, found = (dict(decisions(run)) for run in (RunFolder(str(tmp_path / "run")), made[0]))
    apart = set(expected.keys() ^ found.keys())
    for key in expected.keys() & found.keys():
        one, other = expected[key], found[key]
        if (one["verdict"], one["rule"]) != (other["verdict"], other["rule"]):
            apart.add(key)
        for name in ("tagger", "box_score", "own_score"):
            assert one[name] == pytest.approx(other[name], abs=NEAR), (key, name)
    assert len(expected) > 5 * SCENES
    assert all(is_near(found.get(key) or expected[key], policy) for key in apart)
    assert len(apart) < SCENES / 20
