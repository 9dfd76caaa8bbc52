import json
import math
from pathlib import Path
from typing import Any

import pytest

from sources import write_config
from tagmill.pipeline.config import RunConfig, load_config
from tagmill.tag_system.core.errors import ConfigError

INPUT = {"name": "a", "format": "webdataset", "path": "a.tar"}


def load(folder: Path, *overrides: str, **changes: Any) -> RunConfig:
    return load_config(str(write_config(folder, **changes)), overrides)


def test_a_good_config_is_read_with_its_defaults(tmp_path):
    config = load(tmp_path)
    assert config.tag is not None
    assert config.tag.batch_size == 16
    assert config.clean.policy.rule == "adaptive"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"part_sise": 5}, "unknown key part_sise; did you mean part_size?"),
        ({"tag": {"model": "m", "bach_size": 2}}, "unknown key tag.bach_size; did you mean batch_size?"),
        ({"inputs": [{**INPUT, "nmae": "b"}]}, "unknown key inputs.0.nmae; did you mean name?"),
        (
            {"clean": {"policy": {"paper": {"outlier_fracton": 0.1}}}},
            "unknown key clean.policy.paper.outlier_fracton; did you mean outlier_fraction?",
        ),
        ({"duplicates": {"qqq": 1}}, "unknown key duplicates.qqq"),
        ({"cluster": {"zzzz": 1}}, "known keys here: from, iterations, k, max_k"),
        ({"tag": {}}, "tag.model is missing"),
        ({"inputs": [{"name": "a", "path": "x"}]}, "inputs.0.format is missing"),
        ({"part_size": "many"}, "part_size: Input should be a valid integer"),
        ({"part_size": 0}, "part_size: Input should be greater than or equal to 1, got 0"),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        (
            {"inputs": [{**INPUT, "format": "tarball"}]},
            "inputs.0: unknown format 'tarball': use one of",
        ),
        (
            {"inputs": [{**INPUT, "format": "jsonlines"}]},
            "inputs.0: unknown format 'jsonlines': did you mean jsonl? Otherwise use one of",
        ),
        ({"inputs": [{**INPUT, "format": "nowhere:Csv"}]}, "format 'nowhere:Csv': cannot import nowhere"),
        ({"inputs": [{**INPUT, "format": "json:JSONDecoder"}]}, "lacks version, images_apart, find_sources"),
        ({"inputs": [{**INPUT, "options": {"x": 1}}]}, "format 'webdataset' with options {'x': 1}: "),
        ({"inputs": [{**INPUT, "name": "a/b"}]}, "inputs.0.name: String should match"),
        ({"inputs": [INPUT, {**INPUT, "path": "b.tar"}]}, "inputs: two have the same name: a, a"),
        ({"inputs": [{**INPUT, "images": "pictures"}]}, "a webdataset holds its images"),
        ({"localize": None}, "embed: needs the stage localize, which is switched off"),
        (
            {"tag": None, "embed": {"model": "m", "region_tagger": "all"}},
            "embed.region_tagger: needs the stage tag, which is switched off",
        ),
        ({"shards": {"size": 4}}, "shards.size: 4 is less than part_size 5"),
        (
            {"clean": {"policy": {"rule": "papr"}}},
            "clean.policy.rule: unknown rule 'papr': did you mean paper?",
        ),
        (
            {"clean": {"policy": {"rule": "paper", "options": {"outlier_fraction": 0.2}}}},
            "clean.policy: options are for a rule of your own: write the constants of paper in the section",
        ),
        ({"cluster": {"seed": 2**31}}, "cluster.seed: Input should be less than 2147483648"),
        (
            {"cluster": {"iterations": 10**12}},
            "cluster.iterations: Input should be less than or equal to 10000",
        ),
        ({"threads": 10**12}, "threads: Input should be less than or equal to 1024"),
        (
            {"clean": {"policy": {"adaptive": {"margin": math.inf}}}},
            "clean.policy.adaptive.margin: Input should be a finite number",
        ),
        ({"max_dead_fraction": 2}, "max_dead_fraction: Input should be less than or equal to 1, got 2"),
        ({"clean": None}, "clean: Input should be"),
        ({"run": ""}, "run: String should have at least 1 character"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(tmp_path, changes, words):
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, **changes)
    message = str(raised.value)
    assert words in message
    assert "config.yaml: " in message
    assert "\n" not in message


def test_every_wrong_key_has_a_line_of_its_own(tmp_path):
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, part_sise=5, thread=2)
    assert len(str(raised.value).splitlines()) == 2


def test_a_key_that_is_missing_at_the_top_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text(json.dumps({"inputs": [INPUT]}))
    with pytest.raises(ConfigError, match=r"c\.yaml: run is missing"):
        load_config(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [\n", "is not YAML"),
        (b"a: 1\n\tb: 2\n", "is not YAML"),
        (b"- a\n- b\n", "expected keys and values"),
        (b"", "expected keys and values"),
        (b"just words", "expected keys and values"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_file_that_is_no_config_is_one_line(tmp_path, content, words):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as raised:
        load_config(str(tmp_path / "c.yaml"))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=rf"no config file nothere\.yaml \(looked in {Path.cwd()}\)"):
        load_config("nothere.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(str(tmp_path))


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    path = write_config(tmp_path)
    path.write_text("run: a\ninputs:\n  - name: b\n    path: c\n    name: d\n")
    with pytest.raises(ConfigError, match=r"the key name stands there twice \(line 5\)"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["clean.policy.tagger_threshold=0.2"], "clean.policy.tagger_threshold"),
        (["clean.policy.unchecked_threshold=0.2"], "clean.policy.unchecked_threshold"),
        (["tag.score_floor=0.4"], "candidate_floor"),
        (["clean.policy.tagger_threshold=0.2", "candidate_floor=0.2"], None),
        (["clean.policy.tagger_threshold=0.2", "tag=null"], None),
    ],
)
def test_a_threshold_under_an_earlier_floor_is_warned_of(tmp_path, caplog, overrides, key):
    load(tmp_path, *overrides)
    assert [key] * bool(key) == [record.getMessage().split(": ")[1] for record in caplog.records]


def test_overrides_replace_add_and_switch_off(tmp_path):
    config = load(
        tmp_path,
        "clean.policy.rule=paper",
        "clean.policy.adaptive.margin=0.5",
        "embed=null",
        "localize.kinds=[object, scene]",
        'tag.options={a: "1"}',
        "candidate_floor=0.1",
    )
    assert config.clean.policy.rule == "paper"
    assert config.clean.policy.adaptive.margin == 0.5
    assert config.embed is None
    assert config.localize is not None
    assert config.localize.kinds == ["object", "scene"]
    assert config.tag is not None
    assert config.tag.options == {"a": "1"}
    assert config.candidate_floor == 0.1


def test_an_override_reaches_into_a_list(tmp_path):
    config = load(
        tmp_path, "inputs.0.links=follow", "localize.kinds=[object, scene]", "localize.kinds.1=action"
    )
    assert config.inputs[0].links == "follow"
    assert config.localize is not None
    assert config.localize.kinds == ["object", "action"]


def test_an_override_can_switch_a_stage_on(tmp_path):
    config = load(tmp_path, "tag.model=square_models:SquareTagger", tag=None)
    assert config.tag is not None
    assert config.tag.model == "square_models:SquareTagger"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("part_size", "write it as key=value"),
        ("part_size.more=1", "part_size is not a section"),
        (
            "inputs.1.name=x",
            "--set inputs.1.name: inputs is a list without an entry 1: its entries are 0 to 0",
        ),
        ("inputs.name=x", "inputs is a list without an entry name: its entries are 0 to 0"),
        ("inputs.-1={}", "inputs is a list without an entry -1"),
        ("inputs.0.name.more=x", "inputs.0.name is not a section"),
        ("tagg.model=x", "unknown key tagg; did you mean tag?"),
        ("clean.policy.rule=[a", "is not YAML"),
    ],
)
def test_a_bad_override_is_one_line(tmp_path, override, words):
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, override)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
