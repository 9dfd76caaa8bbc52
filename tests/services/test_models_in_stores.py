"""Models, trainings and evaluations whose files lie in an object store: the same as of local files."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

import tiny_models
import trainings
from buckets import Store, squares
from commands import tagmill
from faulty_proxy import KINDS
from runs import current_folder, drive, shard_bytes, squares_config
from tagmill.models.local_copies import CACHE
from tagmill.tag_system.core import files

pytestmark = pytest.mark.services

STEPS = {"duplicates": None, "localize": None, "embed": None, "part_size": 6, "shards": {"size": 6}}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A folder with a run in `first`, and a model in `model` that was trained on its shards."""
    base = tmp_path_factory.mktemp("base")
    inputs = squares(base / "first")
    tars = {"b.tar": (24, 0)}
    drive(squares_config(base / "first", tars, inputs=inputs, ingest={"val_fraction": 0.3}, **STEPS))
    clip = f"local-dir:{tiny_models.open_clip(base / 'clip')}"
    values = {
        "model": trainings.MODEL,
        "classes": trainings.CLASSES,
        "clip": {"model": clip, "device": "cpu"},
    }
    train(base, "model", current_folder(base / "first" / "run", "shards"), **values)
    return base


def train(folder: Path, out: str, shards: object, *options: object, code: int = 0, **changes: object) -> str:
    data = {
        "datasets": [{"path": str(shards), "name": "squares"}],
        "batch_size": 4,
        "workers": 1,
        "window": 1,
    }
    values = {
        "out": str(folder / out),
        "data": data | changes.pop("data", {}),  # type: ignore[operator]
        "losses": {"terms": ["tagging"]},
        "engine": {"device": "cpu"},
        "epochs": 2,
    }
    (folder / f"{out}.yaml").write_text(yaml.safe_dump(values | changes))
    return tagmill("train", folder / f"{out}.yaml", *options, code=code)[1]


def weights(folder: Path) -> dict[str, bytes]:
    return {
        name: one.numpy().tobytes() for name, one in load_file(folder / "last" / "model.safetensors").items()
    }


def put(store: Store, local: Path, *names: str) -> str:
    fs, path = files.filesystem(store.uri(*names))
    fs.put(f"{local}/", path, recursive=True)
    return store.uri(*names)


@pytest.fixture
def model(base, store, tmp_path, monkeypatch) -> str:
    monkeypatch.setenv(CACHE, str(tmp_path / "copies"))
    return put(store, base / "model" / "last", "models", "mine")


def test_a_run_tags_by_a_model_of_the_store(base, store, model, tmp_path):
    found = []
    for name, path in (("near", str(base / "model" / "last")), ("far", model)):
        tag = {"model": "ram", "options": {"path": path, "device": "cpu"}}
        drive(squares_config(tmp_path / name, inputs=squares(tmp_path / name), tag=tag, **STEPS))
        found.append(shard_bytes(tmp_path / name / "run"))
    assert found[0] == found[1]
    assert found[0]


def test_a_training_starts_from_the_store_and_reads_its_shards(base, store, model, tmp_path):
    shards = current_folder(base / "first" / "run", "shards")
    train(tmp_path, "near", shards, init=str(base / "model" / "last"))
    far = put(store, shards, "shards")
    cache = {"folder": str(tmp_path / "cache"), "max_bytes": 10**7}
    with store.proxy.failing(*KINDS, every=15) as faults:
        for name, data in (("far", {}), ("cached", {"cache": cache})):
            train(tmp_path, name, far, init=model, data=data)
    assert faults.done.total() > len(KINDS)
    assert weights(tmp_path / "near") == weights(tmp_path / "far") == weights(tmp_path / "cached")
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(list(shards.glob("train-*.tar")))


def test_a_store_that_fails_a_training_for_good_is_a_line_and_the_training_goes_on_later(
    base, store, model, tmp_path
):
    far = put(store, current_folder(base / "first" / "run", "shards"), "shards")
    train(tmp_path, "whole", far, init=model)
    train(tmp_path, "stopped", far, init=model, epochs=1)
    with store.proxy.failing("503", match=b"train-000000.tar"):
        err = train(tmp_path, "stopped", far, "--resume", init=model, code=2)
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: {store.scheme}://bucket does not do what it is asked: ")
    train(tmp_path, "stopped", far, "--resume", init=model)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_model_of_the_store_is_measured_into_the_store(base, store, model, tmp_path):
    shards = current_folder(base / "first" / "run", "shards")
    far = put(store, shards, "shards")
    tagmill("models", "eval", base / "model" / "last", "--shards", shards, "--out", tmp_path / "near")
    tagmill("models", "eval", model, "--shards", far, "--out", store.uri("evaluated"))
    near = json.loads((tmp_path / "near" / "summary.json").read_text())
    there = json.loads(files.read_bytes(store.uri("evaluated", "summary.json")))
    assert there == near | {"model": model}
    assert files.list_names(store.uri("evaluated")) == ["report.html", "summary.json", "tags.parquet"]
    _, err = tagmill(
        "models", "calibrate", model, "--shards", far, "--out", tmp_path / "t", "--apply", code=2
    )
    assert "--apply writes into a folder of this machine: leave it out" in err
