"""The demo with its own models, on some of its own scenes."""

import io
import tarfile
from pathlib import Path

import pytest
from rich.console import Console

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import read_truth, score_run
from tagmill.runners.commands.demo import PIECES, Demo, embedded, show_demo

pytestmark = [
    pytest.mark.package,
    pytest.mark.skipif(not any(embedded().glob("tagger")), reason="the demo's models are not here"),
]

SCENES = 100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """A run of the demo over a few scenes, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    data = folder / "data"
    data.mkdir()
    for piece in ("truth.parquet", "tagger", "grounding-dino", "clip"):
        (data / piece).symlink_to(embedded() / piece)
    with (
        tarfile.open(embedded() / "scenes-000000.tar") as whole,
        tarfile.open(data / "scenes-000000.tar", "w") as some,
    ):
        for member in whole.getmembers()[: 2 * SCENES]:
            some.addfile(member, whole.extractfile(member))
    sink = io.StringIO()
    show_demo(Console(file=sink, soft_wrap=True, width=120), Demo(None, str(folder / "run"), 0), data)
    return RunFolder(str(folder / "run")), sink.getvalue()


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
