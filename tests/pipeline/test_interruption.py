"""Runs that stop between two steps, where a process may be killed, and what is made afterwards."""

from pathlib import Path

import pytest

from runs import CountingEngine, Quiet, current_folder, drive, shard_bytes, squares_config
from sources import members, write_squares, write_tar
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.verify import verify


def stop_before_recording(config: Path, stage: str) -> None:
    """Run until all outputs of a stage are in place, and stop before they are recorded."""

    class Stopped(Driver):
        def _save_record(self, record):
            if record.stage == stage:
                raise KeyboardInterrupt
            super()._save_record(record)

    driver = Stopped(load_config(str(config)), accept_changes=True)
    with pytest.raises(KeyboardInterrupt):
        driver.run(CountingEngine(), Quiet())


def is_sound(run: Path) -> bool:
    return not any(problems for _, _, problems in verify(RunFolder(str(run))))


@pytest.mark.parametrize("stage", ["ingest", "duplicates", "tag", "cluster", "clean"])
def test_an_accepted_change_that_is_interrupted_and_taken_back_leaves_no_trace(tmp_path, stage):
    config = squares_config(tmp_path, {"b.tar": (8, 0)})
    run, tar = tmp_path / "run", tmp_path / "data" / "b.tar"
    drive(config)
    shards, original = shard_bytes(run), tar.read_bytes()
    # As many examples, and the last is a copy of the first: duplicates say something else too.
    write_tar(tar, [item for i in range(8) for item in members(f"{i:06d}", 50 + i % 7).items()])
    stop_before_recording(config, stage)
    tar.write_bytes(original)
    drive(config, accept_changes=True)
    assert shard_bytes(run) == shards
    assert is_sound(run)
    assert drive(config).jobs == []


def test_what_was_made_before_an_interruption_is_not_made_again(tmp_path):
    config = squares_config(tmp_path, {"b.tar": (8, 0)})
    drive(config)
    write_squares(tmp_path / "data" / "b.tar", 8, 50)
    stop_before_recording(config, "tag")
    made = drive(config, accept_changes=True)
    assert made.stages == ["localize", "embed", "cluster", "clean", "shards"]
    assert is_sound(tmp_path / "run")


def test_a_run_that_stopped_before_its_manifest_gets_one(tmp_path):
    config = squares_config(tmp_path, embed=None)
    drive(config)
    folder = current_folder(tmp_path / "run", "shards")
    before = (folder / "manifest.json").read_bytes()
    for name in ("manifest.json", "_STAGE.json"):
        (folder / name).unlink()
    assert drive(config).jobs == []
    assert (folder / "manifest.json").read_bytes() == before
