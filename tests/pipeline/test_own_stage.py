"""Runs with a stage whose class the config names."""

import pytest

from runs import current_folder, damaged, drive, plans, samples, shard_bytes, squares_config
from tagmill.pipeline.config import load_config
from tagmill.pipeline.current import current_records
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core.errors import ConfigError

OWN = {"stage": "own_stages:Unwanted", "after": "duplicates"}


def test_it_is_made_recorded_verified_and_shown_like_any_other(tmp_path):
    config = squares_config(tmp_path, stages=[{**OWN, "options": {"numbers": [1]}}])
    drive(config)
    run = tmp_path / "run"
    assert len(samples(run)) == 23
    order = [record.stage for record in current_records(RunFolder(str(run)))]
    assert order[:3] == ["ingest", "duplicates", "unwanted"]
    assert damaged(run) == []
    part = next(current_folder(run, "unwanted").glob("*.parquet"))
    part.write_bytes(b"")
    assert [str(part) in problem for problem in damaged(run)] == [True]


def test_its_options_decide_what_is_made_again(tmp_path):
    config = squares_config(tmp_path, stages=[OWN])
    drive(config)
    assert {name for name, plan in plans(config).items() if not plan.is_whole} == set()
    config = squares_config(tmp_path, stages=[{**OWN, "options": {"numbers": [1]}}])
    engine = drive(config)
    assert "unwanted" in engine.stages
    assert "ingest" not in engine.stages


def test_once_it_is_taken_out_the_run_is_as_if_it_had_never_been(tmp_path):
    drive(squares_config(tmp_path / "never"))
    drive(squares_config(tmp_path / "it", stages=[OWN]))
    drive(squares_config(tmp_path / "it"))
    folder = RunFolder(str(tmp_path / "it" / "run"))
    assert folder.current("unwanted") is None
    assert "unwanted" not in [record.stage for record in current_records(folder)]
    assert shard_bytes(tmp_path / "it" / "run") == shard_bytes(tmp_path / "never" / "run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "own_stages:Nothing"}, "module own_stages has no Nothing"),
        ({"stage": "no_such_module:Unwanted"}, "cannot import no_such_module"),
        ({"stage": "Unwanted"}, "use your own class as package.module:Class"),
        ({"stage": "own_stages:json"}, "is not a stage: extend tagmill.transforms.stage:PartStage"),
        ({"stage": "own_stages:Nameless"}, "lacks name, version, schema"),
        ({"stage": "own_stages:Usurper"}, "the name clean is taken"),
        ({"stage": "own_stages:Hasty"}, "stage hasty reads clean, which comes after it; set `after`"),
        ({"after": "cleaning"}, "there is no stage 'cleaning'"),
        ({"options": {"number": [1]}}, "unknown key number; did you mean numbers"),
        ({"options": {"numbers": [-1]}}, "unwanted: numbers begin with 0"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_with_it_is_said_before_anything_starts(tmp_path, changes, words):
    config = squares_config(tmp_path, stages=[OWN | changes])
    with pytest.raises(ConfigError) as caught:
        Driver(load_config(str(config)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
