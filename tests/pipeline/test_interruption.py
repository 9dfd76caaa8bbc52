"""Runs that stop between two steps, where a process may be killed, and what is made afterwards."""

import os
import shutil
from pathlib import Path

import pytest

from runs import (
    current_folder,
    damaged,
    drive,
    latest_note,
    shard_bytes,
    squares_config,
    stop_before_recording,
)
from sources import members, write_squares, write_tar
from tagmill.tag_system.core import files
from tagmill.transforms import parquet


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
    assert damaged(run) == []
    assert drive(config).jobs == []


def test_what_was_made_before_an_interruption_is_not_made_again(tmp_path):
    config = squares_config(tmp_path, {"b.tar": (8, 0)})
    drive(config)
    write_squares(tmp_path / "data" / "b.tar", 8, 50)
    stop_before_recording(config, "tag")
    made = drive(config, accept_changes=True)
    assert made.stages == ["candidates", "localize", "embed", "cluster", "clean", "shards"]
    assert damaged(tmp_path / "run") == []


def test_a_run_that_stopped_before_its_manifest_gets_one(tmp_path):
    config = squares_config(tmp_path, embed=None)
    drive(config)
    folder = current_folder(tmp_path / "run", "shards")
    before = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    latest_note(folder / "records").unlink()
    assert drive(config).jobs == []
    assert (folder / "manifest.json").read_bytes() == before


def dead_keys(folder: Path) -> list[str]:
    found = sorted((folder / "dead").glob("*.parquet"))
    return [letter["key"] for path in found for letter in parquet.read_table(str(path)).to_pylist()]


@pytest.mark.parametrize("bad", [[], [3]], ids=["without dead letters", "with another"])
def test_dead_letters_of_a_part_that_never_came_leave_before_another_comes(tmp_path, monkeypatch, bad):
    def write(bad: list[int]) -> None:
        named = [(i, members(f"{i}", i, ["" if i in bad else "x"])) for i in range(5)]
        write_tar(tmp_path / "data" / "b.tar", [item for _, found in named for item in found.items()])

    def create(uri: str, data: bytes, **how: bool) -> bool:
        if "/ingest/" in uri and "/dead/" not in uri:
            raise OSError("the connection is lost")
        return create_bytes(uri, data, **how)

    create_bytes = files.create_bytes
    config = squares_config(tmp_path, {}, embed=None, localize=None)
    write([1, 2])
    monkeypatch.setattr(files, "create_bytes", create)
    with pytest.raises(OSError, match="connection is lost"):
        drive(config, "max_dead_fraction=1")
    monkeypatch.undo()
    write(bad)
    drive(config, "max_dead_fraction=1")
    folder = current_folder(tmp_path / "run", "ingest")
    assert dead_keys(folder) == [f"squares/{i}" for i in bad]
    assert drive(config, "max_dead_fraction=1").jobs == []


def test_dead_letters_that_a_removed_part_left_behind_go_too(tmp_path):
    config = squares_config(tmp_path, {"b.tar": (8, 0)}, embed=None)
    drive(config)
    folder = current_folder(tmp_path / "run", "tag")
    part = sorted(folder.glob("*.parquet"))[0]
    (folder / "dead").mkdir()
    part.rename(folder / "dead" / part.name)
    assert drive(config).stages == ["tag"]
    assert list((folder / "dead").iterdir()) == []
    assert damaged(tmp_path / "run") == []


def test_leftovers_of_a_killed_writer_are_passed_over(copy):
    run = copy.parent / "run"
    drive(copy)
    for stage in ("tag", "clean", "shards"):
        (current_folder(run, stage) / ".tmp-abc123").write_bytes(b"half a part")
        (current_folder(run, stage) / ".tmp-abc124.parquet").write_bytes(b"half a part")
    assert drive(copy).jobs == []
    assert damaged(run) == []
    os.unlink(sorted(current_folder(run, "tag").glob("[!.]*.parquet"))[0])
    assert drive(copy).stages == ["tag"]


def test_parts_of_an_interrupted_ingest_are_kept(tmp_path):
    config = squares_config(tmp_path, {"a.tar": (12, 0)}, embed=None, localize=None)
    drive(config)
    run = tmp_path / "run"
    shards = shard_bytes(run)
    folder = current_folder(run, "ingest")
    kept = sorted(folder.glob("*.parquet"))[:2]
    before = [path.stat().st_ino for path in kept]
    shutil.rmtree(folder / "sources")
    shutil.rmtree(folder / "records")
    sorted(folder.glob("*.parquet"))[2].unlink()
    for stage in ("duplicates", "tag", "clean", "shards"):
        shutil.rmtree(run / stage)
    drive(config)
    assert [path.stat().st_ino for path in kept] == before
    assert shard_bytes(run) == shards
