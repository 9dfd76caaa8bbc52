"""What a publisher asks of a dataset: licences, sources, what is left out, and the card that says it."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml

from runs import current_folder, damaged, drive, plans, samples, squares_config
from sources import members, write_tar
from wordnet_corpus import SHARED

LICENCES = [4, "http://creativecommons.org/licenses/by-nc-nd/2.0/", None, "CC BY-NC 2.0", "a | <b>mine</b>"]


def build(folder: Path, **changes: object) -> Path:
    """Two inputs of ten examples, of which one is a copy; the second has a licence of its own."""
    tars: dict[str, dict[str, bytes]] = {"a": {}, "b": {}}
    for number in range(20):
        name = "a" if number < 10 else "b"
        tars[name] |= members(f"{number:06d}", seed=number, captions=["a red square"])
        said = LICENCES[number % 5] if name == "a" else None
        fields = {"captions": ["a red square"], "license": said}
        tars[name][f"{number:06d}.json"] = json.dumps(fields).encode()
    tars["a"]["000009.png"] = tars["a"]["000008.png"]
    for name, contents in tars.items():
        write_tar(folder / "data" / f"{name}.tar", list(contents.items()))
    inputs = [
        {"name": name, "format": "webdataset", "path": str(folder / "data" / f"{name}.tar")} for name in "ab"
    ]
    inputs[0]["license_map"] = {4: "CC BY 2.0"}
    inputs[1]["license"] = "https://creativecommons.org/publicdomain/zero/1.0/"
    return squares_config(folder, {}, inputs=inputs, part_size=5, **changes)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = build(tmp_path_factory.mktemp("publishing"))
    drive(config)
    return config


def dataset(config):
    return current_folder(config.parent / "run", "shards")


def manifest(config):
    return json.loads((dataset(config) / "manifest.json").read_text())


def front(config):
    return yaml.safe_load((dataset(config) / "README.md").read_text().split("---")[1])


def around(config):
    """The bytes of all files of the dataset, by name."""
    return {path.name: path.read_bytes() for path in dataset(config).iterdir() if path.is_file()}


def test_samples_manifest_and_card_say_the_licences(config):
    found = samples(config.parent / "run")
    licences = Counter(one.get("license", "unknown") for one in found)
    assert licences == {
        "CC0-1.0": 10,
        "CC-BY-2.0": 2,
        "CC-BY-NC-ND-2.0": 2,
        "unknown": 2,
        "CC-BY-NC-2.0": 2,
        "a | <b>mine</b>": 1,
    }
    told = manifest(config)
    assert told["licenses"] == licences
    assert told["inputs"] == {
        "a": {"format": "webdataset", "examples": 9},
        "b": {"format": "webdataset", "examples": 10},
    }
    assert told["left_out"] == {"duplicates": {"same_image": 1}}
    card = (dataset(config) / "README.md").read_text()
    assert "| [CC-BY-NC-ND-2.0](https://creativecommons.org/licenses/by-nc-nd/2.0/) | 2 |" in card
    assert "| a \\| &lt;b>mine&lt;/b> | 1 |" in card
    plain = " ".join(card.split())
    assert "Of 19 images, 4 (21%) must not be used commercially (NonCommercial), and of 2 (11%)" in plain
    assert "The licence of 2 (11%) is not known" in plain
    assert "| a | webdataset | 9 |" in card
    assert "Of these inputs are left out: 1 by duplicates (same_image)." in card
    rules = Counter(f"{tag['verdict']}/{tag['rule']}" for one in found for tag in one["tags"])
    assert told["rules"] == rules
    decided = sum(count for name, count in rules.items() if not name.endswith("not_proposed"))
    verdict, rule = max(rules, key=lambda name: rules[name] * ("not_proposed" not in name)).split("/")
    count = rules[f"{verdict}/{rule}"]
    assert f"| {verdict} | {rule} | {count} ({count / decided:.0%}) |" in card
    for name, model in told["models"].items():
        assert f"- `{name}`: {model['name']}, `{model['fingerprint']}`" in card
    assert "Nobody has checked the tags by eye" in card
    assert front(config)["license"] == "other"
    assert "Dated" not in card


def test_a_licence_makes_shards_again_and_nothing_else_and_a_date_the_card_alone(tmp_path):
    config = build(tmp_path)
    drive(config)
    before = around(config)
    config = build(tmp_path, shards={"size": 10, "date": "2026-11-26"})
    assert drive(config).jobs == []
    after = around(config)
    assert {name for name in before if before[name] != after[name]} == {"README.md", "manifest.json"}
    assert "Dated 2026-11-26." in after["README.md"].decode()
    assert damaged(tmp_path / "run") == []
    values = json.loads(config.read_text())
    for source in values["inputs"]:
        source |= {"license": "CC-BY-ND-2.0", "license_field": None, "license_map": {}}
    config.write_text(json.dumps(values))
    assert [name for name, plan in plans(config).items() if not plan.is_whole] == ["shards"]
    drive(config)
    assert manifest(config)["licenses"] == {"CC-BY-ND-2.0": 19}
    told = front(config)
    assert [told["license"], told["license_name"]] == ["other", "cc-by-nd-2.0"]
    assert told["license_link"] == "https://creativecommons.org/licenses/by-nd/2.0/"
    fresh = build(tmp_path / "fresh")
    fresh.write_text(config.read_text().replace(str(tmp_path / "run"), str(tmp_path / "fresh" / "run")))
    drive(fresh)
    assert around(fresh) == around(config)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A run of the 300 photographs of COCO, without models."""
    if not (SHARED / "photos").is_dir():
        pytest.skip("needs the photographs of ../shared")
    folder = tmp_path_factory.mktemp("photographs")
    paths = str(SHARED / "photos" / "coco-00000{0..2}.tar")
    source = {"name": "coco", "format": "webdataset", "path": paths, "labels": "categories"}
    off = dict.fromkeys(("tag", "localize", "embed", "parse"))
    config = squares_config(folder, {}, inputs=[source], part_size=100, shards={"size": 300}, **off)
    drive(config)
    return config


def test_of_the_photographs_most_are_not_for_commerce(photographs):
    told = manifest(photographs)["licenses"]
    assert told == {
        "CC-BY": 50,
        "CC-BY-NC": 28,
        "CC-BY-NC-ND": 96,
        "CC-BY-NC-SA": 73,
        "CC-BY-ND": 14,
        "CC-BY-SA": 39,
    }
    card = " ".join((dataset(photographs) / "README.md").read_text().split())
    assert "Of 300 images, 197 (66%) must not be used commercially (NonCommercial), and of 110 (37%)" in card
