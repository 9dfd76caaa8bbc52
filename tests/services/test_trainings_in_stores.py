"""Trainings that write into an object store: what they leave there is what a local one leaves, to the bit."""

from pathlib import Path

import pytest
import yaml

import tiny_models
import trainings
from buckets import Store, squares
from commands import start, tagmill
from faulty_proxy import KINDS
from runs import current_folder, drive, squares_config
from services import wait_until
from tagmill.models.local_copies import CACHE
from tagmill.models.training.uploads import names_at
from tagmill.tag_system.core import files

pytestmark = pytest.mark.services

STEPS = {"duplicates": None, "localize": None, "embed": None, "part_size": 6, "shards": {"size": 6}}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with a run in `run`, and a model in `near` that was trained on its shards."""
    base = tmp_path_factory.mktemp("base")
    inputs = squares(base)
    tiny_models.open_clip(base / "clip")
    drive(squares_config(base, {"b.tar": (24, 0)}, inputs=inputs, ingest={"val_fraction": 0.3}, **STEPS))
    tagmill("train", recipe(base, base, "near", base / "near"))
    return base


@pytest.fixture(autouse=True)
def _own_copies(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "copies"))


def recipe(base: Path, folder: Path, name: str, out: object, **changes: object) -> Path:
    shards = current_folder(base / "run", "shards")
    values = {
        "out": str(out),
        "model": trainings.MODEL,
        "classes": trainings.CLASSES,
        "clip": {"model": f"local-dir:{base / 'clip'}", "device": "cpu"},
        "data": {"datasets": [{"path": str(shards), "name": "squares"}], "batch_size": 4, "workers": 1},
        "losses": {"terms": ["tagging"]},
        "engine": {"device": "cpu"},
        "validate": {"best_by": "loss"},
        "save_every": 1,
        "keep": 2,
        "epochs": 1,
        "tensorboard": True,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def same(uri: str, local: Path) -> None:
    """Compare all checkpoints that two trainings left, in the store and here, and `best` and `last`."""
    assert names_at(uri) == sorted(path.name for path in (local / "steps").iterdir())
    for path in sorted(local.glob("steps/*/*")):
        assert files.read_bytes(files.join(uri, str(path.relative_to(local)))) == path.read_bytes(), path
    for name in ("best", "last"):
        assert files.read_bytes(files.join(uri, name)).endswith(f"{(local / name).readlink()}\n".encode())
    near = (local / "log.jsonl").read_bytes().splitlines()
    assert len(files.read_bytes(files.join(uri, "log.jsonl")).splitlines()) == len(near)


def test_a_training_writes_into_the_store_and_its_best_is_measured_there(base, store: Store, tmp_path):
    out = store.uri("written")
    with store.proxy.failing(*KINDS, every=9) as faults:
        tagmill("train", recipe(base, tmp_path, "far", out))
    assert set(faults.done) == set(KINDS)
    same(out, base / "near")
    names = files.list_names(out)
    assert any(name.startswith("events.out.tfevents.") for name in names)
    assert "lease.json" not in names
    shards = current_folder(base / "run", "shards")
    for model, place in ((base / "near" / "best", tmp_path / "near"), (f"{out}/best", tmp_path / "far")):
        tagmill("models", "eval", model, "--shards", shards, "--out", place)
    assert (tmp_path / "far" / "tags.parquet").read_bytes() == (
        tmp_path / "near" / "tags.parquet"
    ).read_bytes()


def test_a_store_that_goes_away_ends_a_training_in_a_line_and_it_goes_on_there(base, store: Store, tmp_path):
    out = store.uri("cut")
    config = recipe(base, tmp_path, "cut", out)
    with store.proxy.failing("503", match=b"steps/00000003/state.safetensors"):
        _, err = tagmill("train", config, code=2)
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: {store.scheme}://bucket does not do what it is asked: ")
    assert names_at(out) == ["00000001", "00000002"]
    tagmill("train", config, "--resume")
    same(out, base / "near")


def test_a_killed_training_goes_on_from_the_store_alone(base, store: Store, tmp_path):
    out = store.uri("killed")
    config = recipe(base, tmp_path, "killed", out)
    with store.proxy.failing("slow", match=b"steps/00000003"):
        process = start("train", config)
        try:
            wait_until(lambda: "00000002" in names_at(out), "a checkpoint")
        finally:
            process.kill()
            process.communicate()
    tagmill("train", config, "--resume")
    same(out, base / "near")
