"""The documented example on real photographs, run as its README says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import call

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
EXAMPLES = ROOT / "docs" / "examples"
FEWER = ("--set", "ingest.limit=30")
"""30 photographs of each of the three tars, of 100: the claims hold on them too."""

pytestmark = pytest.mark.skipif(
    not (SHARED / "photos").exists() or not EXAMPLES.exists(), reason="needs the photographs of ../shared"
)


@pytest.fixture(scope="module", autouse=True)
def _where_its_readme_is_read() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.syspath_prepend(str(EXAMPLES))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "run"
    call("run", "docs/examples/photos.yaml", "--set", f"run={folder}", *FEWER, "--workers", 0)
    return folder


def test_every_photograph_reaches_a_shard(run: Path):
    (manifest,) = (run / "shards").glob("*/manifest.json")
    assert sum(json.loads(manifest.read_text())["examples"].values()) == 90


def test_tags_agree_with_the_true_categories_and_cleaning_makes_them_purer(run: Path):
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
    said, _ = call("plan", *change)
    assert "embed: up to date" in said
    assert "policy.rule adaptive -> paper" in said
    call("run", *change, "--workers", 0)
    after = {stage: sorted(path.name for path in (run / stage).iterdir()) for stage in ("tag", "embed")}
    assert after == before
    assert sum(path.is_dir() for path in (run / "clean").iterdir()) == 2
