"""The documented example on real photographs, run as its README says."""

import json
import os
from pathlib import Path

import pytest

from commands import environment
from warm import run_warm

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
EXAMPLES = ROOT / "docs" / "examples"
FEWER = ("--set", "ingest.limit=40")
"""40 photographs of each of the three tars, of 100: the claims hold on them too."""

pytestmark = pytest.mark.skipif(
    not (SHARED / "photos").exists() or not EXAMPLES.exists(), reason="needs the photographs of ../shared"
)


def tagmill(*arguments: str) -> str:
    env = environment()
    result = run_warm(
        [*arguments], {**env, "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{env['PYTHONPATH']}"}, str(ROOT)
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "run"
    tagmill("run", "docs/examples/photos.yaml", "--set", f"run={folder}", *FEWER)
    return folder


def test_every_photograph_reaches_a_shard(run: Path):
    (manifest,) = (run / "shards").glob("*/manifest.json")
    assert sum(json.loads(manifest.read_text())["examples"].values()) == 120


def test_tags_agree_with_the_true_categories_and_cleaning_makes_them_purer(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import score_photos

    scores = score_photos.score(str(run), str(SHARED / "vocab" / "coco80_synonyms.txt"))
    for step, found in scores.items():
        print(f"{step:6} precision {found.precision:.3f} recall {found.recall:.3f} F1 {found.f1:.3f}")  # noqa: T201
    assert scores["parse"].precision > 0.80
    assert scores["parse"].recall > 0.50
    assert scores["tag"].right >= scores["parse"].right
    assert scores["clean"].precision > scores["tag"].precision + 0.02
    assert scores["clean"].right > 0.85 * scores["tag"].right


def test_a_changed_threshold_makes_clean_and_shards_alone(run: Path):
    change = ("docs/examples/photos.yaml", "--set", f"run={run}", *FEWER, "--set", "clean.policy.rule=paper")
    before = {stage: sorted(path.name for path in (run / stage).iterdir()) for stage in ("tag", "embed")}
    said = tagmill("plan", *change)
    assert "embed: up to date" in said
    assert "policy.rule adaptive -> paper" in said
    tagmill("run", *change)
    after = {stage: sorted(path.name for path in (run / stage).iterdir()) for stage in ("tag", "embed")}
    assert after == before
    assert sum(path.is_dir() for path in (run / "clean").iterdir()) == 2
