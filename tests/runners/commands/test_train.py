"""What a training cannot be told ends in one line, by the command that a user types."""

import importlib.util
import json

import pytest

from commands import call
from tagmill.runners.commands.demo import embedded

DATASET = {"path": "gs://bucket/shards"}
MODEL = embedded() / "tagger"
VALUES = {
    "out": "out",
    "init": str(MODEL),
    "data": {"datasets": [DATASET], "batch_size": 4},
    "losses": {"terms": ["tagging"]},
    "engine": {"device": "cpu"},
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(VALUES))  # JSON is YAML
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.datasets=[{path: a, weight: .inf}]",
            "data.datasets.0.weight: Input should be a finite number, got inf",
        ),
        (
            "data.datasets=[{path: a, weight: .nan}]",
            "data.datasets.0.weight: Input should be a finite number, got nan",
        ),
        ("engine.clip_norm=.inf", "engine.clip_norm: Input should be a finite number, got inf"),
        ("epochs=.inf", "epochs: Input should be a finite number, got inf"),
        ("clip={model: .nan}", "clip.model must name a CLIP, got nan"),
        ("clip={device: cpu}", "clip.model must name a CLIP, got None"),
        (
            "schedule.learning_rate=1e40",
            "schedule.learning_rate: Input should be less than or equal to 1000000, got '1e40'",
        ),
        (
            "out=hf://owner/out",
            "out: hf://owner/out takes no files: name a path, or a url of a store such as s3:// or gs://",
        ),
        ("out=' '", "out: ' ' names no folder: give a path, or a url with a bucket"),
        ("out=s3://", "out: 's3://' names no folder: give a path, or a url with a bucket"),
        ("card.name=' '", "card.name: String should match pattern '\\S', got ' '"),
        ("classes=[]", "classes: give a file, or at least one name, none of which is empty"),
        ("classes=[red, '']", "classes: give a file, or at least one name, none of which is empty"),
    ],
)
def test_a_value_that_cannot_be_is_said_in_one_line(config, override, message):
    out, err = call("train", config, "--set", override, code=2)
    assert (out, err) == ("", f"tagmill: {config}: {message}\n")
    assert [path.name for path in config.parent.iterdir()] == [config.name]


@pytest.mark.skipif(importlib.util.find_spec("adlfs") is not None, reason="adlfs is installed")
@pytest.mark.parametrize("command", ["train", "eval"])
def test_shards_in_a_store_without_its_package_are_said_in_one_line(config, command):
    shards = "abfs://container@account/shards"
    arguments = {
        "train": ("train", config, "--set", f"data.datasets=[{{path: '{shards}'}}]"),
        "eval": ("models", "eval", MODEL, "--shards", shards, "--out", "evaluated"),
    }
    _, err = call(*arguments[command], code=2)
    assert err.startswith(f"tagmill: {shards}/manifest.json cannot be opened: ")
    assert "adlfs" in err
    assert err.count("\n") == 1
