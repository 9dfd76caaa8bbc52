"""What a training measures on val, and what follows from it, by the command that a user types."""

import io
import json
import re
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image as pillow

from commands import call, start
from trainings import CLASSES, lines, trainer_of, weights


@pytest.fixture
def config_of(tmp_path):
    """Writes a recipe as a file."""

    def make(values):
        path = tmp_path / f"{Path(values['out']).name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return make


def of_val(values):
    """The figures of all validations by their step."""
    return {row["step"]: row for row in lines(values) if "val_tagging" in row}


def best(values, name="best"):
    return json.loads((Path(values["out"]) / name / "state.json").read_text())["best"]


def table(folder):
    """The table of the classes of a model or an evaluation, without the kinds, which shards alone know."""
    rows = pq.read_table(Path(folder) / "tags.parquet").to_pylist()
    return {row["tag"]: {name: value for name, value in row.items() if name != "kind"} for row in rows}


def mask(shards, tag, keys=""):
    """Make the engine uncertain of a tag that it kept in records of val, which keep their size."""
    path = shards / "val-000000.tar"
    with tarfile.open(path) as tar, path.open("r+b") as stream:
        for member in tar:
            if member.name.startswith(keys) and member.name.endswith("json"):
                record = tar.extractfile(member).read()
                kept = rb'("tag":"%s",[^}]*?"verdict":)"kept","rule":"\w{5}' % tag.encode()
                stream.seek(member.offset_data)
                stream.write(re.sub(kept, rb'\1"uncertain","rule":"', record))


def test_val_is_measured_as_eval_measures_it(values_of, config_of, copied, tmp_path):
    mask(copied, "blue", "squares%2F000000")
    data = {"datasets": [{"path": str(copied), "name": "squares"}]}
    classes = [*CLASSES, "violet"]  # which is no tag of the dataset, and therefore masked
    values = values_of(epochs=1, data=data, classes=classes, allow_unlearnable=True)
    values |= {"validate": {"every_steps": 2, "best_by": "loss"}}
    said, _ = call("train", config_of(values))
    found = of_val(values)
    assert sorted(found) == [2, 3]
    call("models", "eval", Path(values["out"]) / "last", "--shards", copied, "--out", tmp_path / "eval")
    ours, theirs = table(Path(values["out"]) / "last"), table(tmp_path / "eval")
    assert list(ours) == classes
    for name, row in ours.items():
        for key, value in row.items():
            np.testing.assert_allclose(value, theirs[name][key], rtol=1e-5) if key != "tag" else None
    assert [ours[name]["images"] for name in classes] == [8, 8, 7, 8, 0]
    rows = [row for row in ours.values() if row["positives"]]
    assert [row["tag"] for row in rows] == CLASSES
    precision, recall = (np.mean([row[name] for row in rows]) for name in ("precision", "recall"))
    right, predicted, positives = (
        sum(row[key] for row in rows) for key in ("right", "predicted", "positives")
    )
    last = found[3]
    assert last["val_map"] == pytest.approx(np.mean([row["ap"] for row in rows]), abs=1e-9)
    assert last["val_cf1"] == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-9)
    assert last["val_of1"] == pytest.approx(2 * right / (predicted + positives), abs=1e-9)
    lowest = min(found.values(), key=lambda row: row["val_tagging"])
    assert best(values) == {"by": "loss", "value": lowest["val_tagging"], "step": lowest["step"], "waited": 0}
    assert f"is step {lowest['step']}, loss {lowest['val_tagging']:.4f} on val" in said
    first = max(table(Path(values["out"]) / "best").values(), key=lambda row: row["ap"])
    assert re.search(rf"^{first['tag']} +{first['positives']} +{100 * first['ap']:.1f} ", said, re.MULTILINE)
    assert not (Path(values["out"]) / "validation").exists()


def test_a_killed_training_goes_on_to_the_same_early_end(values_of, config_of):
    changes = {"epochs": 500, "validate": {"every_steps": 2, "patience": 12}, "engine": {"ema": 0.9}}
    whole, parts = values_of("whole", **changes), values_of("parts", **changes)
    said, _ = call("train", config_of(whole))
    assert "ended early: the last 12 validations found no better one" in said
    steps = max(of_val(whole))
    assert best(whole) | {"waited": 0} == best(whole, "last") | {"waited": 0}
    assert best(whole, "last")["waited"] == 12
    assert 20 < steps < 500
    process, log = start("train", config_of(parts)), Path(parts["out"]) / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) > 5) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    call("train", config_of(parts), "--resume")
    assert lines(parts) == lines(whole)
    for name in ("last", "best"):
        ours, theirs = Path(parts["out"], name), Path(whole["out"], name)
        assert ours.resolve().name.split(".")[0] == theirs.resolve().name
        for file in ("state.json", "model.safetensors", "state.safetensors", "tags.parquet", "README.md"):
            assert (ours / file).read_bytes() == (theirs / file).read_bytes()
    said, _ = call("train", config_of(parts), "--resume")
    assert "ended early" in said
    assert max(of_val(parts)) == steps
    call("train", config_of(parts), "--resume", "--set", "validate.patience=13")
    assert steps < max(of_val(parts))


def test_a_validation_that_is_due_is_made_by_who_goes_on(values_of):
    changes = {"validate": {"every_steps": 2}, "save_every": 1}
    whole, parts = values_of("whole", **changes), values_of("parts", **changes)
    assert trainer_of(whole).run()
    for step in (1, 2, 3, 4):
        assert not trainer_of(parts, resume=step > 1).run(until=step)
    assert trainer_of(parts, resume=True).run()
    assert lines(parts) == lines(whole)
    assert sorted(of_val(whole)) == [2, 3, 4, 6]
    assert best(parts, "last") == best(whole, "last")
    assert all((weights(parts)[name] == value).all() for name, value in weights(whole).items())


def test_another_figure_begins_the_search_anew(values_of, config_of):
    values = values_of(epochs=1, validate={"best_by": "loss"})
    call("train", config_of(values))
    state = Path(values["out"]) / "last" / "state.json"
    old = json.loads(state.read_text()) | {"best": 0.001}  # as older checkpoints have it
    state.write_text(json.dumps(old))
    longer = values_of(epochs=2, validate={"best_by": "loss"})
    call("train", config_of(longer), "--resume")
    assert best(longer, "last")["value"] == 0.001
    call("train", config_of(values_of(epochs=2, validate=False)), "--resume")
    assert best(longer, "last")["value"] == 0.001
    longer = values_of(epochs=3, validate={"best_by": "cf1"})
    said, _ = call("train", config_of(longer), "--resume")
    assert "best is by cf1 now: the next validation is the first to count\n" in said
    assert best(longer) == {"by": "cf1", "value": of_val(longer)[9]["val_cf1"], "step": 9, "waited": 0}


def test_without_a_positive_in_val_there_is_a_loss_alone(values_of, config_of, copied):
    mask(copied, "yellow")
    data = {"datasets": [{"path": str(copied), "name": "squares"}]}
    values = values_of(epochs=1, data=data, classes=["yellow"], validate={"patience": 1})
    said, _ = call("train", config_of(values))
    assert (
        "epoch 1: no class has a positive in val: no map, and no best; validate.best_by: loss needs none\n"
        in said
    )
    assert "best:" not in said
    assert "ended early" not in said
    assert list(of_val(values)[3]) == ["step", "val_tagging"]
    assert not (Path(values["out"]) / "best").exists()


def test_pictures_show_names_scores_and_what_is_right(values_of, config_of):
    pytest.importorskip("wandb")
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    values = values_of(epochs=2, tensorboard=True, wandb={"mode": "disabled"}, validate={"pictures": 3})
    call("train", config_of(values))
    events = accumulators.EventAccumulator(values["out"], size_guidance={accumulators.IMAGES: 0})
    events.Reload()
    tags = events.Tags()["images"]
    assert len(tags) == 3
    assert all(tag.startswith("val/squares/squares/0000") for tag in tags)
    for tag in tags:
        assert [one.step for one in events.Images(tag)] == [3, 6]
        picture = np.asarray(pillow.open(io.BytesIO(events.Images(tag)[1].encoded_image_string)))
        photo, panel = picture[12:-12, 12:396], picture[:, 408:]
        assert photo.std() > 10
        assert (panel < 128).any(2).sum() > 100
    assert events.Scalars("val_map")[0].step == 3
