"""What a publisher asks of a dataset: licences, sources, what is left out, and the card that says it."""

import json
import shutil
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from commands import call
from runs import current_folder, damaged, drive, plans, samples, squares_config
from sources import members, write_tar
from tagmill.tag_system.core import extras
from tagmill.tag_system.core.errors import ConfigError
from wordnet_corpus import SHARED

LICENCES = [4, "http://creativecommons.org/licenses/by-nc-nd/2.0/", None, "CC BY-NC 2.0", "a | <b>mine</b>"]


OFF: dict[str, object] = dict.fromkeys(("tag", "localize", "embed"))
"""Without models."""


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


def around_of(run):
    """The bytes of all files of a run's dataset, by name."""
    return {
        path.name: path.read_bytes() for path in current_folder(run, "shards").iterdir() if path.is_file()
    }


def around(config):
    return around_of(config.parent / "run")


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
    assert "| a \\| \\<b\\>mine\\</b\\> | 1 |" in card
    plain = " ".join(card.split())
    assert "4 (21%) of 19 images must not be used commercially (NonCommercial), and of 2 (11%)" in plain
    assert "The licence of 2 (11%) is not known: it may forbid anything." in plain
    assert "| a | webdataset | 9 |" in card
    assert "Of the inputs are left out: 1 by duplicates (same_image)." in card
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


def croissant(folder):
    import mlcroissant

    return mlcroissant.Dataset(folder / "croissant.json")


def test_croissant_beside_the_shards_says_where_each_member_lies(config, caplog):
    folder = dataset(config)
    described = croissant(folder)
    assert not [line for line in caplog.messages if "error" in line.lower() or "not standard" in line]
    for record in described.records("members"):
        told = {name.removeprefix("members/"): value for name, value in record.items()}
        with tarfile.open(folder / f"{told['shard'].decode()}.tar") as tar:
            member = tar.getmember(told["member"].decode())
            assert (member.offset_data, member.size) == (told["offset"], told["size"])
    assert len(list(described.records("members"))) == 38
    told = described.metadata
    assert "https://creativecommons.org/licenses/by-nc-nd/2.0/" in told.license
    assert told.date_published is None
    assert (
        told.data_collection == "Examples of sources as they are: 9 of a (webdataset), 10 of b (webdataset)."
    )
    assert told.data_collection_missing_data == "Of the inputs are left out: 1 by duplicates (same_image)."
    assert '"rule": "adaptive"' in told.data_annotation_protocol[0]
    assert told.data_annotation_analysis[0].startswith("Nobody has checked the tags")
    assert any("4 (21%) of 19 images must not" in limit for limit in told.data_limitations)
    assert any(
        tool == "tag: square_models:SquareTagger, SquareTagger-1" for tool in told.machine_annotation_tools
    )


def test_a_licence_makes_shards_again_and_nothing_else_and_a_date_the_card_alone(tmp_path):
    config = build(tmp_path, **OFF)
    drive(config)
    before = around(config)
    config = build(tmp_path, shards={"size": 10, "date": "2026-11-26"}, **OFF)
    assert drive(config).jobs == []
    after = around(config)
    assert {name for name in before if before[name] != after[name]} == {
        "README.md",
        "croissant.json",
        "manifest.json",
    }
    assert "Dated 2026-11-26." in after["README.md"].decode()
    assert str(croissant(dataset(config)).metadata.date_published).startswith("2026-11-26")
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


FREE = "license NOT LIKE '%-N_%' AND width > 10"
"""True of what may be sold and changed; of an unknown licence it says NULL."""


def keys(config):
    return {one["key"] for one in samples(config.parent / "run")}


def counts(run, stage):
    """The row of a stage in the report."""
    rows = pq.read_table(run / "report" / "stages.parquet").to_pylist()
    return next(row for row in rows if row["stage"] == stage)


def test_an_expression_takes_examples_as_an_export_does(config, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(config.parent / "run", run)
    call("export", config.parent / "run", "--to", "parquet", tmp_path / "out", "--where", FREE)
    call("export", config.parent / "run", "--to", "webdataset", tmp_path / "shards", "--where", FREE)
    exported = (tmp_path / "shards" / "README.md").read_text()
    assert f"Exported are those of which this is true: `{FREE}`." in exported
    assert "0 (0%) of 13 images must not" in exported
    assert "is not known: it" not in exported
    assert "| a | webdataset | 3 |" in exported
    assert "3 of a (webdataset), 10 of b" in croissant(tmp_path / "shards").metadata.data_collection
    asked = [f"run={run}", f"shards.where={FREE}"]
    made = plans(config, *asked)
    assert [name for name, plan in made.items() if not plan.is_whole] == ["choose", "shards"]
    assert made["shards"].unknown
    drive(config, *asked)
    table = pq.read_table(tmp_path / "out" / "examples.parquet")
    there = {one["key"]: one for one in samples(run)}
    assert there.keys() == set(table["key"].to_pylist())
    assert {one["license"] for one in there.values()} == {"CC0-1.0", "CC-BY-2.0", "a | <b>mine</b>"}
    row = counts(run, "choose")
    assert (row["examples_in"], row["examples_out"], dict(row["dropped"])) == (19, 13, {"where": 6})
    assert counts(run, "shards")["examples_in"] == counts(run, "shards")["examples_out"] == 13
    card = (current_folder(run, "shards") / "README.md").read_text()
    assert "left out: 1 by duplicates (same_image), 6 by choose (where)." in card
    assert f"true are taken: `{FREE}`." in card
    assert damaged(run) == []
    assert drive(config, *asked).jobs == []
    drive(config, f"run={run}")  # and all are back
    assert {one["key"] for one in samples(run)} == keys(config)
    assert around_of(run) == around(config)


def test_what_is_excluded_leaves_card_and_counts(tmp_path):
    config = build(
        tmp_path, shards={"size": 10, "where": "license = 'CC0-1.0' OR license LIKE 'CC-BY-%'"}, **OFF
    )
    drive(config)
    assert manifest(config)["left_out"] == {"choose": {"where": 3}, "duplicates": {"same_image": 1}}
    values = json.loads(config.read_text())
    values["inputs"][0]["exclude"] = str(tmp_path / "exclude.txt")
    config.write_text(json.dumps(values))
    gone = ["b/000011", "b/000012", "a/000003"]
    (tmp_path / "exclude.txt").write_text("\n".join(gone))
    drive(config)
    told = manifest(config)
    assert told["licenses"] == {"CC-BY-2.0": 2, "CC-BY-NC-2.0": 1, "CC-BY-NC-ND-2.0": 2, "CC0-1.0": 8}
    assert {name: one["examples"] for name, one in told["inputs"].items()} == {"a": 5, "b": 8}
    assert "5 of a (webdataset), 8 of b" in croissant(dataset(config)).metadata.data_collection
    assert "| a | webdataset | 5 |" in (dataset(config) / "README.md").read_text()
    assert keys(config).isdisjoint(gone)
    assert damaged(tmp_path / "run") == []
    assert drive(config).jobs == []
    (dataset(config) / "croissant.json").unlink()
    (problem,) = damaged(tmp_path / "run")
    assert problem.endswith("croissant.json is missing")
    drive(config)
    assert damaged(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("wide > 3", "it may name the columns key, split, width"),
        ("width >", "Parser Error"),
        ("tagmill_row < 3", "Binder Error"),
        ("EXISTS (FROM '/etc/passwd')", "shards.where"),
        ("width > 1 OR random() < 0.5", "random says another thing each time"),
        ("meta->>'$.day' < current_date::VARCHAR", "current_date says another thing each time"),
    ],
)
def test_an_expression_that_cannot_be_is_one_line_before_anything_runs(tmp_path, where, said):
    config = build(tmp_path)
    values = json.loads(config.read_text())
    values["shards"]["where"] = where
    config.write_text(json.dumps(values))
    for command in ("run", "plan"):
        _, err = call(command, config, code=2)
        (line,) = err.splitlines()
        assert f"shards.where {where!r}" in line
        assert said in line
    assert not (tmp_path / "run").exists()


def test_an_expression_that_fails_names_the_example_and_none_of_all_is_said(tmp_path, caplog):
    config = build(tmp_path, **OFF)
    with pytest.raises(ConfigError, match=r"of the example a/000001: Conversion Error"):
        drive(config, "shards.where=(meta->>'$.license')::INT IS NULL OR width > 3")
    drive(config, "shards.where=NULL > 1")
    assert "shards.where is true of none of 19 examples" in caplog.text
    assert samples(tmp_path / "run") == []
    assert damaged(tmp_path / "run") == []


def test_without_duckdb_the_line_says_what_to_install(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        drive(config, "shards.where=width > 3")
    assert extras.lacking(caught.value) == "duckdb is not installed: pip install 'tagmill[sql]'"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A run of the 300 photographs of COCO, without models."""
    if not (SHARED / "photos").is_dir():
        pytest.skip("needs the photographs of ../shared")
    folder = tmp_path_factory.mktemp("photographs")
    paths = str(SHARED / "photos" / "coco-00000{0..2}.tar")
    source = {"name": "coco", "format": "webdataset", "path": paths, "labels": "categories"}
    config = squares_config(folder, {}, inputs=[source], part_size=100, shards={"size": 300}, **OFF)
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
    assert "197 (66%) of 300 images must not be used commercially (NonCommercial), and of 110 (37%)" in card
    drive(photographs, "shards.where=license NOT LIKE '%NC%' AND license NOT LIKE '%ND%'")
    assert manifest(photographs)["licenses"] == {"CC-BY": 50, "CC-BY-SA": 39}
    assert manifest(photographs)["left_out"] == {"choose": {"where": 211}}
