"""What a training starts from: a recipe, a trained model, decisions, stored features."""

import json
import re
from pathlib import Path
from uuid import uuid4

import pytest
import torch
import yaml

from commands import call
from stage_runs import shared
from tagmill.models.ram import store
from tagmill.models.training.train import Trainer
from tagmill.runners.commands.train import read_recipe, train
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.features import Features, FeaturesConfig
from tagmill.transforms.stage import PartTask, make_part
from trainings import HERE, MODEL, TEXT, lines, trainer_of, weights

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "train.yaml"


def test_new_tags_are_added_to_a_trained_model(values_of):
    first = values_of("first", epochs=1)
    trainer_of(first).run()
    init = str(Path(first["out"]) / "last")
    second = values_of("second", init=init, model={}, classes=["tidy", "Green_Square", "red"], epochs=1)
    second |= {"model": {}, "allow_unlearnable": True}
    one = trainer_of(second)
    old, new = weights(first)["label_embed"], one.model.label_embed
    assert torch.equal(new[1:], old[[1, 0]])
    assert new[0].norm().item() == pytest.approx(1, abs=1e-5)
    without = {name: value for name, value in second.items() if name != "clip"}
    with pytest.raises(ConfigError, match=r"1 classes have no label embedding yet \(tidy\): name by clip"):
        trainer_of(without)


def started(values, init, **changes):
    """A training from a saved model, by the keys that change."""
    return trainer_of({**values, "init": str(init), "model": {}, **changes}).model


def test_classes_that_differ_in_their_writing_keep_what_is_theirs(values_of, tmp_path):
    values = values_of(classes=["red", "RED", "blue"], allow_unlearnable=True, epochs=1)
    model = trainer_of(values).model
    model.set_labels(torch.randn(3, 24))
    store.save(model, tmp_path / "init")
    rows = model.label_embed
    assert torch.equal(started(values, tmp_path / "init").label_embed, rows)
    other = started(values, tmp_path / "init", classes=["Blue", "RED", "Red", "red"])
    assert torch.equal(other.label_embed, rows[[2, 1, 0, 0]])


def test_classes_that_repeat_keep_their_rows(values_of, vocab, tmp_path):
    model = {**MODEL, "kind": "tag2text", "text": TEXT}
    values = values_of(model=model, vocab=vocab, clip=None, allow_unlearnable=True)
    values |= {"classes": ["red", "blue", "red"], "epochs": 1}
    first = trainer_of(values).model
    store.save(first, tmp_path / "init", vocab=Path(vocab))
    second = started(values, tmp_path / "init", classes=["new", "red", "red", "blue"])
    assert torch.equal(second.label_embed[1:], first.label_embed[[0, 2, 1]])


def test_a_key_of_a_section_changes_nothing_beside_it(values_of, vocab, tmp_path):
    model = {**MODEL, "kind": "ram", "text": TEXT}
    values = values_of(model=model, vocab=vocab, epochs=1)
    first = trainer_of(values).model.config
    store.save(trainer_of(values).model, tmp_path / "init", vocab=Path(vocab))
    changes = {"head": {"dropout": 0.3}, "encoder": {"arguments": {"drop_rate": 0.1}}, "text": None}
    found = started(values, tmp_path / "init", model=changes).config
    assert found.head == first.head.model_copy(update={"dropout": 0.3})
    arguments = {**first.encoder.arguments, "drop_rate": 0.1}
    assert found.encoder == first.encoder.model_copy(update={"arguments": arguments})
    assert found.text is None


def test_classes_are_by_default_the_dataset_s(values_of, shards):
    values = values_of(epochs=1, allow_unlearnable=True)
    del values["classes"]
    one = trainer_of(values)
    assert list(one.model.config.classes) == [t.name for t in Vocabulary.load(str(shards / "vocabulary.tsv"))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, "unknown key speed"),
        ({"validation": False}, "unknown key validation; did you mean validate?"),
        ({"engine": {"precision": "float8"}}, "engine.precision"),
        ({"validate": {"best_by": "recall"}}, "validate.best_by"),
        ({"validate": {"evry_steps": 2}}, "unknown key validate.evry_steps; did you mean every_steps?"),
        ({"losses": {"terms": ["caption", "tagging"]}}, "a ram_plus has no caption"),
        ({"losses": {"terms": None}, "clip": None}, "needs a teacher"),
        ({"labels": {"templates": ["a {}", "the {}"]}}, "labels give 2 sentences a class"),
        ({"model": {**MODEL, "dimension": 16}}, "clip gives 24 numbers a text, the model's dimension is 16"),
        ({"model": {**MODEL, "kind": "ram", "text": TEXT}}, "vocab: a text side needs"),
        ({"trunk": "nothing.safetensors"}, "cannot read the checkpoint"),
        ({"model": {**MODEL, "heads": 3}}, "model: heads"),
    ],
)
def test_a_bad_recipe_is_one_line(values_of, tmp_path, changes, message):
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values_of(**changes)))
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        Trainer(read_recipe(str(config), []), HERE)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_a_folder_with_a_training(values_of, tmp_path):
    values = values_of(epochs=1)
    trainer_of(values).run()
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump({**values, "out": f"{values['out']}/"}))
    with pytest.raises(ConfigError, match="has a training already: go on by --resume"):
        train(str(config))
    _, err = call("train", config, "--set", f"init={values['out']}", "--set", f"out={tmp_path}/b", code=2)
    assert err.endswith(f"no model.safetensors: it is a training's, name {values['out']}/best\n")
    out, _ = call("train", config, "--resume")
    assert f"done: {values['out']}/last is step 3\n" in out
    out, _ = call("train", config, "--resume", "--dry-run")
    assert out.endswith("the recipe works: 0 steps taken, and no checkpoint left\n")
    _, err = call("train", config, "--set", f"out={config}", code=2)
    assert err == f"tagmill: out: {config} is not, or is not in, a folder: name another out\n"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {**MODEL, "image_size": 64}}, "model.image_size"),
        ({"model": {**MODEL, "kind": "ram"}}, "model.kind"),
        ({"model": {key: value for key, value in MODEL.items() if key != "head"}}, "model.head"),
        ({"classes": ["red", "blue"]}, "classes"),
        ({"init": "elsewhere"}, "init"),
        ({"losses": {"terms": ["tagging", "distillation"]}}, "losses.terms"),
        ({"engine": {"device": "cpu"}}, "engine.ema"),
        ({"classes": ["red"], "engine": {"device": "cpu"}}, "classes, engine.ema"),
    ],
)
def test_a_training_does_not_go_on_with_what_cannot_change(values_of, changes, named):
    values = values_of(engine={"device": "cpu", "ema": 0.9})
    trainer_of(values).run(until=1)
    with pytest.raises(ConfigError, match=f"cannot be resumed with another {named}: give the") as caught:
        trainer_of({**values, **changes}, resume=True)
    assert "\n" not in str(caught.value)


def test_a_training_goes_on_with_what_may_change(values_of):
    values = values_of(engine={"ema": 0.9})
    trainer_of(values).run(until=1)
    names = f"memory://{uuid4().hex}/names.txt"
    with pytest.raises(ConfigError, match=r"cannot read memory://.*: classes: name a file of this store"):
        trainer_of({**values, "classes": names}, resume=True)
    files.replace_bytes(names, ("\ufeff" + "\r\n".join(values["classes"])).encode())
    changes = {
        "classes": names,
        "epochs": 1,
        "log_every": 2,
        "save_every": 2,
        "validate": False,
        "data": {"workers": 1, "batch_size": 2},
        "schedule": {"learning_rate": 0.001},
        "engine": {"ema": 0.8, "clip_norm": 1.0},
        "losses": {"gamma_negative": 2},
    }
    changes["data"]["datasets"] = [{**values["data"]["datasets"][0], "implied": "ignored"}]
    said = []
    assert trainer_of(values_of(**changes), resume=True, say=said.append).run()
    changed = "losses.gamma_negative, data.datasets.0.implied"
    assert f"from here on with another {changed} than before" in said


def test_thresholds_that_a_checkpoint_was_given_are_of_no_later_one(values_of, shards, tmp_path):
    whole, parts = values_of("whole"), values_of("parts")
    assert trainer_of(whole).run()
    assert not trainer_of(parts).run(until=4)
    last, said = Path(parts["out"]) / "last", []
    fitted = ("--shards", shards, "--min-positives", 1, "--out", tmp_path / "fitted", "--apply")
    call("models", "calibrate", last, *fitted)
    assert json.loads((last / "config.json").read_text())["thresholds"]
    assert trainer_of(parts, resume=True, say=said.append).run()
    assert any(line.startswith(f"{last} was given other thresholds: they stay its own") for line in said)
    assert lines(parts) == lines(whole)
    for name in ("config.json", "README.md", "model.safetensors"):
        assert (last / name).read_bytes() == (Path(whole["out"]) / "last" / name).read_bytes()


def test_the_decisions_of_another_run_are_those_of_the_start(values_of, finished, tmp_path, capsys):
    values = values_of(epochs=1, data={"decisions": str(finished / "run")})
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values))
    assert train(str(config)) == 0
    assert "on 22 examples go before those of the shards" in capsys.readouterr().out
    laid = Path(values["out"]) / "decisions" / "decisions.json"
    before = laid.stat()
    assert train(str(config), resume=True) == 0
    assert laid.stat() == before
    plain = {**values, "epochs": 2, "data": {**values["data"], "decisions": None}}
    config.write_text(yaml.safe_dump(plain))
    assert train(str(config), resume=True) == 0
    assert "from here on with another data.decisions than before" in capsys.readouterr().out
    config.write_text(yaml.safe_dump({**plain, "out": str(tmp_path / "plain"), "epochs": 1}))
    assert train(str(config)) == 0
    later = {**values, "out": str(tmp_path / "plain")}
    config.write_text(yaml.safe_dump(later))
    with pytest.raises(ConfigError, match="a training that began without other decisions goes on without"):
        train(str(config), resume=True)
    stranger = yaml.safe_dump({**values, "out": str(tmp_path / "b"), "classes": ["red"]})
    config.write_text(stranger.replace(str(finished / "run"), str(tmp_path)))
    with pytest.raises(ConfigError, match="in which the stage clean is done"):
        train(str(config))


def test_stored_features_train_without_a_clip(values_of, shards, clip, tmp_path):
    first = values_of("first", epochs=1)
    trainer_of(first).run()
    options = {"model": clip, "device": "cpu"}
    stage = Features(FeaturesConfig(model="open-clip", options=options), shared())
    stage.setup()
    for index in shards.glob("train-*.index.parquet"):
        name = index.name.removesuffix(".index.parquet")
        make_part(stage, str(tmp_path / "f"), PartTask(name, "f", {"shards": str(index)}, str(shards)))
    datasets = [{"path": str(shards), "features": str(tmp_path / "f")}]
    losses = {"terms": ["tagging", "distillation"]}
    init = str(Path(first["out"]) / "last")
    values = values_of("second", init=init, clip=None, losses=losses, data={"datasets": datasets}, epochs=1)
    values["model"] = {}
    assert trainer_of(values).run()
    rows = [json.loads(row) for row in (Path(values["out"]) / "log.jsonl").read_text().splitlines()]
    assert all(row["distillation"] > 0 for row in rows if "distillation" in row)
    assert sum("distillation" in row for row in rows) == 3


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the documents are not beside the tests")
def test_the_documented_recipe_is_one():
    recipe = read_recipe(str(EXAMPLE), [])
    assert (recipe.losses.terms, recipe.engine.ema) == (None, 0.99)
