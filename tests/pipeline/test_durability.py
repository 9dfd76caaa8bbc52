"""What a run committed is on the disk: a file's bytes before its name, the name before it is believed."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from runs import drive, squares_config
from syncs import watched
from tagmill.tag_system.core import files


@pytest.fixture(autouse=True)
def _flushing(monkeypatch):
    monkeypatch.delenv(files.FLUSH)


def test_every_file_of_a_run_reached_the_disk_before_it_counted(tmp_path):
    config = squares_config(tmp_path, {"a.tar": (6, 0)}, features={"model": "square_models:SquareTeacher"})
    with watched() as syncs:
        drive(config)
        drive(config, "tag.score_floor=0.2", "shards.size=6")  # takes parts over, and moves some away
    found = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.suffix for path in found} >= {".parquet", ".json", ".yaml", ".tar", ".tsv", ".md", ".npy"}
    assert list(syncs.problems(tmp_path / "run")) == []


def link_refused(*_: object) -> None:
    raise OSError(errno.EXDEV, "refused")


def commit_file(_: Path, target: Path) -> None:
    with files.local_scratch(str(target)) as scratch:
        scratch.write_bytes(b"1")
        files.create_from(str(target), scratch)


def copy(source: Path, target: Path) -> None:
    link, os.link = os.link, link_refused
    try:
        files.adopt(str(source), str(target))
    finally:
        os.link = link


def write(_: Path, target: Path) -> None:
    with files.replacing(str(target)) as partial:
        partial.mkdir()
        (partial / "weights").write_bytes(b"1")


WAYS = {
    "create": lambda source, target: files.create_bytes(str(target), b"1"),
    "lose to another writer": lambda source, target: [files.create_bytes(str(target), b"1") for _ in "12"],
    "commit": commit_file,
    "replace": lambda source, target: files.replace_bytes(str(target), b"1"),
    "adopt": lambda source, target: files.adopt(str(source), str(target)),
    "copy": copy,
    "move": lambda source, target: files.move(str(source), str(target)),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_into_a_folder_syncs_bytes_before_the_name_and_the_name_at_last(tmp_path, way):
    (tmp_path / "new").mkdir()
    with watched() as syncs:
        source = tmp_path / "source"
        files.create_bytes(str(source), b"1")
        WAYS[way](source, tmp_path / "new" / "deep" / "a")
        assert (tmp_path / "new" / "deep" / "a").read_bytes() == b"1"
    assert list(syncs.problems(tmp_path / "new")) == []
    if way == "lose to another writer":
        assert syncs.events[-1] == ("sync", (tmp_path / "new" / "deep").stat().st_ino, "")


def test_a_whole_folder_is_synced_before_it_gets_its_name(tmp_path):
    with watched() as syncs:
        write(tmp_path, tmp_path / "model")
    named = next(place for place, event in enumerate(syncs.events) if event[2] == str(tmp_path / "model"))
    for path in (tmp_path / "model", tmp_path / "model" / "weights"):
        assert ("sync", path.stat().st_ino, "") in syncs.events[:named]
    assert syncs.events[-1] == ("sync", tmp_path.stat().st_ino, "")


def test_one_switch_turns_it_off(tmp_path, monkeypatch):
    monkeypatch.setenv(files.FLUSH, "0")
    with watched() as syncs:
        for way in WAYS.values():
            shutil.rmtree(tmp_path, ignore_errors=True)
            (tmp_path / "new").mkdir(parents=True)
            (tmp_path / "source").write_bytes(b"1")
            way(tmp_path / "source", tmp_path / "new" / "deep" / "a")
    assert {kind for kind, *_ in syncs.events} == {"name"}
