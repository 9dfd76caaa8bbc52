"""Trainings whose `out` is a url, with a store in this process: they leave what a local one leaves."""

import json
from pathlib import Path

import pytest
import yaml

from commands import call
from tagmill.models import links
from tagmill.models.local_copies import CACHE, local_copy
from tagmill.models.training.recipe import Recipe
from tagmill.models.training.uploads import names_at
from tagmill.pipeline.lease import Lease
from tagmill.tag_system.core import files

EACH_STEP = {"save_every": 1, "keep": 2, "validate": {"best_by": "loss"}}


@pytest.fixture
def far(tmp_path, monkeypatch):
    """The url of an empty folder in the store; models of it are copied into a folder of the test."""
    monkeypatch.setenv(CACHE, str(tmp_path / "copies"))
    uri = f"memory://trainings-{tmp_path.name}"
    yield uri
    files.remove(uri)


def train(tmp_path, values, *options, code=0):
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    return call("train", config, *options, code=code)


def log(data):
    """What a log says of losses and figures."""
    rows = [json.loads(line) for line in data.decode().splitlines()]
    return [{name: row.get(name) for name in ("step", "total", "gradient", "val_tagging")} for row in rows]


def same(uri, local):
    """Compare what two trainings left, on the store and here."""
    assert names_at(uri) == sorted(path.name for path in (local / "steps").iterdir())
    for name in ("last", "best"):
        assert links.read(files.join(uri, name)) == str((local / name).readlink())
    for name in names_at(uri):
        for file in sorted(path.name for path in (local / "steps" / name).iterdir()):
            there = files.read_bytes(files.join(uri, "steps", name, file))
            assert there == (local / "steps" / name / file).read_bytes(), (name, file)
    assert log(files.read_bytes(files.join(uri, "log.jsonl"))) == log((local / "log.jsonl").read_bytes())


def test_a_training_into_a_store_leaves_what_a_local_one_does(values_of, far, finished, tmp_path):
    changes = {**EACH_STEP, "tensorboard": True, "engine": {"ema": 0.9}}
    changes |= {"schedule": {"decay": "exponential"}}  # which does not know how many epochs there are
    changes |= {"data": {"decisions": str(finished / "run"), "repeat_factor": {"threshold": 1.0}}}
    local = values_of(**changes)
    train(tmp_path, local)
    values = {**values_of(**changes), "out": far}
    train(tmp_path, values, "--set", "epochs=1", "--profile", 1, f"{far}/traces")
    assert not Recipe.model_validate(values).folder.exists()
    said, _ = train(tmp_path, values, "--resume")
    assert f"best: {files.join(far, 'steps', '000000')}" in said
    same(far, Path(local["out"]))
    beside = files.list_names(far)
    assert {"log.jsonl", "positives.json", "repeat_factors.npz", "last", "best"} < set(beside)
    assert len([name for name in beside if name.startswith("events.out.tfevents.")]) == 2
    assert "lease.json" not in beside
    (trace,) = files.list_names(f"{far}/traces")
    assert json.loads(files.read_bytes(f"{far}/traces/{trace}"))["traceEvents"]
    best = Path(local_copy(f"{far}/best/"))
    assert best.name == (Path(local["out"]) / "best").resolve().name
    assert sorted(path.name for path in best.iterdir()) == ["config.json", "model.safetensors", "state.json"]
    second = values_of("second", init=f"{far}/last", model={}, epochs=1, clip=None)
    train(tmp_path, {**second, "model": {}})


def test_what_can_be_learned_is_read_from_the_store(values_of, far, tmp_path):
    values = {**values_of(epochs=1), "out": far}
    values["classes"] = [*values["classes"], "zorblax"]
    _, err = train(tmp_path, values, code=2)
    assert f"by classes: {far}/learnable.txt" in err
    train(tmp_path, values, "--set", f"classes={far}/learnable.txt")
    train(tmp_path, values, "--set", f"classes={far}/learnable.txt", "--resume")
    _, err = train(tmp_path, values, "--set", f"classes={far}/names.txt", "--resume", code=2)
    assert err.startswith(f"tagmill: cannot read {far}/names.txt: classes: name a file of this store")


def test_what_is_not_whole_in_a_store_is_no_checkpoint(values_of, far, tmp_path):
    changes = {**EACH_STEP, "epochs": 1}
    local = values_of(**changes)
    train(tmp_path, local)
    values = {**local, "out": far}
    train(tmp_path, values)
    newest = files.join(far, "steps", "00000003")
    files.replace_bytes(files.join(newest, "model.safetensors"), b"half of it")
    _, err = train(tmp_path, values, "--resume", code=5)
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: the checkpoint {newest} is damaged (model.safetensors has 10 bytes")
    assert line.endswith(f"--resume goes on from {far}/steps/00000002")
    files.remove(files.join(newest, "state.json"))  # as a training that was killed leaves it
    train(tmp_path, values, "--resume")
    same(far, Path(local["out"]))


def test_a_store_is_trained_into_by_one_process_alone(values_of, far, tmp_path):
    values = {**values_of(epochs=1), "out": far}
    with Lease(f"{far}/lease.json"):
        _, err = train(tmp_path, values, code=2)
    (line,) = err.splitlines()
    assert "is driven by process" in line
    assert f"{far}/lease.json" in line
    train(tmp_path, values)
    _, err = train(tmp_path, values, code=2)
    assert err == f"tagmill: {far} has a training already: go on by --resume, or name another out\n"
    _, err = train(tmp_path, {**values, "out": "hf://mine/model"}, code=2)
    assert "out: hf://mine/model takes no files: name a path, or a url of a store" in err
