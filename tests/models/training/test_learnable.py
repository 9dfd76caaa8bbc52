"""Classes that the data cannot teach are told before the first step, and refused unless allowed."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

from commands import call
from trainings import trainer_of

CLASSES = ["red", "Red square", "yellow", "zorblax", "blue", "yelow", "tidy", "purple", "zorblax"]


def named(shards):
    """Samples of train by kept tags, by those that captions mention and by parsed ones, read by tarfile."""
    kept, mentioned, parsed = Counter(), Counter(), Counter()
    for tar in shards.glob("train-*.tar"):
        with tarfile.open(tar) as stream:
            for member in stream:
                if member.name.endswith(".json"):
                    record = json.load(stream.extractfile(member))
                    kept.update({tag["tag"] for tag in record["tags"] if tag["verdict"] == "kept"})
                    masked = {tag["tag"] for tag in record["tags"] if tag["verdict"] == "uncertain"}
                    found = {mention["tag"] for one in record["captions"] for mention in one["mentions"]}
                    mentioned.update(found - masked)
                    parsed.update({tag["tag"] for tag in record["tags"] if tag["sources"].get("parsed")})
    return kept, mentioned, parsed


def test_a_class_that_cannot_be_learned_is_refused_unless_allowed(values_of, shards, tmp_path):
    kept, _, _ = named(shards)
    assert (kept["yellow"], kept["tidy"]) == (8, 0)
    twice = [{"path": str(shards), "name": name} for name in "ab"]
    out, config = tmp_path / "out", tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(values_of(classes=CLASSES, data={"datasets": twice})))
    said, err = call("train", config, code=2)
    unknown = "3 classes, masked in its samples: zorblax, yelow (nearest: yellow), zorblax"
    few = f"1 class with fewer than 10 positives, hardly learned: blue ({2 * kept['blue']})"
    assert said.splitlines() == [*(f"{name}: its vocabulary does not have {unknown}" for name in "ab"), few]
    cure = f"correct classes, take the 4 that can be learned by classes: {out}/learnable.txt"
    faults = [
        "3 classes that no dataset's vocabulary has: zorblax, yelow (nearest: yellow), zorblax",
        "1 class without a positive in any dataset: tidy",
        "2 tags are more than one class: red = Red square, zorblax = zorblax",
    ]
    ends = f": {cure}, or set allow_unlearnable: true"
    assert err.removeprefix("tagmill: ").splitlines() == [fault + ends for fault in faults]
    assert (out / "learnable.txt").read_text().split() == ["red", "yellow", "blue", "purple"]

    said, _ = call("train", config, "--dry-run", "--set", f"classes={out}/learnable.txt")
    lines = said.splitlines()
    assert lines[0] == few
    assert [line.split("/")[0] for line in lines[1:3]] == ["step 1", "step 2"]
    assert lines[3:] == ["the recipe works: 2 steps taken, and no checkpoint left"]
    assert not (out / "steps").exists()
    assert not (out / "log.jsonl").exists()

    said, _ = call("train", config, "--set", "allow_unlearnable=true", "--set", "epochs=1")
    assert [line for line in said.splitlines() if "allowed" in line] == [f"allowed: {f}" for f in faults]
    first = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    absent = ["zorblax", "yelow", "zorblax"]
    assert first["classes"] == {
        "unknown": {"a": absent, "b": absent},
        "without_positives": ["tidy"],
        "few_positives": {"blue": 2 * kept["blue"]},
        "doubled": [["red", "Red square"], ["zorblax", "zorblax"]],
    }


@pytest.mark.parametrize("which", [0, 1, 2], ids=["kept", "mentioned", "parsed"])
def test_positives_are_those_that_are_learned_from(values_of, shards, which):
    counts = named(shards)[which]
    tags = {"policy": {}, "sources": ["parsed"], "regions": False} if which == 2 else "stored"
    data = {"datasets": [{"path": str(shards), "name": "squares", "tags": tags}]}
    losses, said = {"target": "mentioned" if which == 1 else "decided"}, []
    trainer_of(values_of(losses=losses, data=data), say=said.append)
    names = {"red": "red", "green": "green square", "blue": "blue", "yellow": "yellow"}
    shown = ", ".join(f"{name} ({counts[tag]})" for tag, name in names.items())
    assert said == [f"4 classes with fewer than 10 positives, hardly learned: {shown}"]


def test_a_training_that_goes_on_does_not_count_again(values_of):
    values, said = values_of(), []
    trainer_of(values).run(until=1)
    counts = Path(values["out"]) / "positives.json"
    counts.write_text(counts.read_text().replace('"0": 5', '"0": 12'))
    trainer_of(values, say=said.append, resume=True)
    assert said == [
        "3 classes with fewer than 10 positives, hardly learned: green square (2), blue (2), yellow (8)"
    ]
    trainer_of(
        {**values, "losses": {"target": "mentioned", "terms": ["tagging"]}}, say=said.append, resume=True
    )
    assert "red (5)" in said[1]


def test_ranks_share_the_records(loader_of, shards):
    kept, _, _ = named(shards)
    both = [[*loader_of(shards, rank=rank, world=2).targets(3)] for rank in (0, 1)]
    assert [[len(some) for some in ranks] for ranks in both] == [[3, 3, 2], [3, 3]]
    found = sum(target.values[4] for ranks in both for some in ranks for _, target in some)
    assert found == kept["yellow"]
