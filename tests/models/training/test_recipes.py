"""The documented recipes take two steps, on a small model and small data in the place of theirs."""

import json
from pathlib import Path

import pytest

from commands import call
from tagmill.models.ram import store
from tagmill.runners.commands.train import read_recipe
from trainings import CLASSES, MODEL, TEXT, trainer_of

RECIPES = Path(__file__).parents[3] / "docs" / "examples" / "train"

pytestmark = pytest.mark.skipif(not RECIPES.exists(), reason="the documents are not beside the tests")


def small(name, tmp_path, shards, clip, vocab):
    """What of a recipe is too large, or not here, by its keys."""
    (tmp_path / "texts.json").write_text(
        json.dumps([{tag: [f"{tag} {at}" for at in range(51)]} for tag in CLASSES])
    )
    changes = {
        "out": tmp_path / "out",
        "classes": json.dumps(CLASSES),
        "data.datasets.0.path": shards,
        "data.batch_size": 4,
        "data.workers": 0,
        "engine.device": "cpu",
    }
    if name != "tag2text":
        changes["clip"] = json.dumps({"model": clip, "device": "cpu"})
    if name == "own_classes":
        return changes | {"init": tmp_path / "init"}
    sizes = {key: MODEL[key] for key in ("image_size", "encoder", "dimension", "head")}
    changes |= {f"model.{key}": json.dumps(value) for key, value in sizes.items()} | {"trunk": "null"}
    if name == "ram_plus":
        return changes | {"labels.descriptions": tmp_path / "texts.json"}
    return changes | {"model.text": json.dumps(TEXT), "vocab": vocab}


@pytest.mark.parametrize("name", ["ram_plus", "ram", "tag2text", "own_classes"])
def test_a_documented_recipe_takes_two_steps(values_of, tmp_path, shards, clip, vocab, name):
    assert sorted(path.stem for path in RECIPES.iterdir()) == ["own_classes", "ram", "ram_plus", "tag2text"]
    if name == "own_classes":
        published = trainer_of(values_of("first", classes=["red", "blue"])).model
        store.save(published, tmp_path / "init")
    changes = small(name, tmp_path, shards, clip, vocab)
    options = [f"{key}={value}" for key, value in changes.items()]
    recipe = RECIPES / f"{name}.yaml"
    said, _ = call("train", recipe, "--dry-run", *(part for option in options for part in ("--set", option)))
    assert said.endswith("the recipe works: 2 steps taken, and no checkpoint left\n")
    assert read_recipe(str(recipe), []).losses.target == ("mentioned" if name == "tag2text" else "decided")
