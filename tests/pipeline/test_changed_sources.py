"""Runs whose sources changed since: what is refused, what is made, what leaves the dataset."""

import json
import os
from pathlib import Path

import pytest

from commands import call
from runs import (
    STAGES,
    current_folder,
    current_record,
    damaged,
    drive,
    parts_there,
    plans,
    rows_of,
    samples,
    shard_bytes,
    squares_config,
    stage_files,
    state,
)
from sources import encode, members, square_image, write_squares, write_tar
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import InputChangedError
from tagmill.transforms.formats.webdataset import Webdataset


def test_a_new_source_makes_only_its_own_parts_and_old_shards_keep_their_bytes(copy):
    run = copy.parent / "run"
    first = drive(copy)
    assert first.jobs == []
    write_squares(copy.parent / "data" / "a.tar", 7, 24)
    before = {stage: parts_there(run, stage) for stage in STAGES}
    shards = shard_bytes(run)
    keys = [sample["key"] for sample in samples(run)]
    made = drive(copy)
    new = set(made.tasks("tag"))
    assert len(new) == 2
    for stage in ("localize", "embed"):
        assert set(made.tasks(stage)) == new
    assert len(made.tasks("ingest")) == 1
    for stage in ("ingest", "duplicates", "tag", "localize", "embed"):
        there = parts_there(run, stage)
        assert before[stage].items() <= there.items()
        assert len(there) == len(before[stage]) + 2
    # New regions move the clusters, and with them the distances in the verdicts; the order stays.
    assert [sample["key"] for sample in samples(run)][: len(keys)] == keys
    assert set(shards) < set(shard_bytes(run))
    assert damaged(run) == []


def test_without_clusters_a_new_source_adds_shards_and_touches_none(tmp_path):
    config = squares_config(tmp_path, embed=None)
    run = tmp_path / "run"
    drive(config)
    shards = dict(parts_there(run, "shards").items())
    tars = state(current_folder(run, "shards"), "*.tar")
    write_squares(tmp_path / "data" / "a.tar", 7, 24)
    made = drive(config)
    assert len(made.tasks("clean")) == 2
    assert len(made.tasks("shards")) == 1
    assert shards.items() <= parts_there(run, "shards").items()
    assert tars.items() <= state(current_folder(run, "shards"), "*.tar").items()
    names = list(current_record(run, "ingest").parts)
    assert names[:6] == list(dict.fromkeys(names))[:6]
    assert [s["key"] for s in samples(run)] == [f"squares/{i:06d}" for i in range(31)]


def test_an_earlier_winner_stays_when_its_copy_arrives_under_an_earlier_name(tmp_path):
    config = squares_config(tmp_path, {"b.tar": (5, 0)}, embed=None, localize=None)
    drive(config)
    write_tar(tmp_path / "data" / "a.tar", [("copy.png", members("x", 0)["x.png"])])
    drive(config)
    (loser,) = rows_of(tmp_path / "run", "duplicates")
    assert (loser["key"], loser["reason"], loser["winner_row"]) == ("squares/copy", "same_image", 0)
    assert loser["winner_part"] == next(iter(current_record(tmp_path / "run", "ingest").parts))
    assert loser["part"] == list(current_record(tmp_path / "run", "ingest").parts)[-1]


def test_a_changed_source_is_refused_until_changes_are_accepted(copy):
    run = copy.parent / "run"
    drive(copy)
    contents = [item for i in range(12) for item in members(f"{i:06d}", i + (100 if i == 7 else 0)).items()]
    tar = write_tar(copy.parent / "data" / "b.tar", contents)
    os.utime(tar, (1_000_000, 1_000_000))
    before = stage_files(run)
    with pytest.raises(InputChangedError, match=r"b\.tar changed since it was ingested.*--accept-changes"):
        plans(copy)
    with pytest.raises(InputChangedError):
        drive(copy)
    assert stage_files(run) == before
    made = drive(copy, accept_changes=True)
    # The parts are read again, but one of three says something else.
    (changed,) = made.tasks("tag")
    assert changed.endswith("-00001")
    assert made.tasks("localize") == made.tasks("embed") == [changed]
    assert list(state(current_folder(run, "ingest") / "superseded"))
    (old,) = state(current_folder(run, "tag") / "superseded")
    assert old.endswith(f"-{changed}.parquet")
    assert drive(copy).jobs == []
    assert damaged(run) == []


def test_a_source_that_shrank_loses_its_last_parts(copy):
    run = copy.parent / "run"
    write_squares(copy.parent / "data" / "b.tar", 4)
    drive(copy, accept_changes=True)
    assert len(current_record(run, "ingest").parts) == 4
    assert [s["key"] for s in samples(run)] == [f"squares/{i:06d}" for i in [*range(4), *range(12, 24)]]
    assert damaged(run) == []
    assert drive(copy).jobs == []


def test_a_source_that_grew_is_counted_anew_where_nothing_is_dropped(copy):
    write_squares(copy.parent / "data" / "b.tar", 14)  # two more in its last part
    drive(copy, accept_changes=True)
    found = {stage: current_record(copy.parent / "run", stage) for stage in ("ingest", "duplicates")}
    assert [record.count("example", "in") for record in found.values()] == [26, 26]


def test_a_touched_source_is_not_a_changed_one_and_is_read_once(copy, monkeypatch):
    drive(copy)
    before = stage_files(copy.parent / "run")
    os.utime(copy.parent / "data" / "b.tar", (1_000_000, 1_000_000))
    plans(copy)
    assert stage_files(copy.parent / "run") == before
    assert drive(copy).jobs == []
    after = stage_files(copy.parent / "run")
    noted = {name for name in before | after if before.get(name) != after.get(name)}
    (source,) = {name for name in noted if "/sources/" in name}
    # Beside it changes the record, which has its digest.
    records = f"{Path(source).parents[1]}/records/"
    assert all(name.startswith(records) for name in noted - {source})
    monkeypatch.setattr(Webdataset, "open_read", None)
    assert drive(copy).jobs == []


@pytest.mark.parametrize("removed", ["b.tar", "c.tar"])
def test_a_source_that_is_missing_is_refused_until_it_returns_or_that_is_accepted(copy, removed, caplog):
    run, tar = copy.parent / "run", copy.parent / "data" / removed
    drive(copy)
    contents, before = tar.read_bytes(), stage_files(run)
    record = next(p for p in current_folder(run, "ingest").glob("sources/*.json") if removed in p.read_text())
    gone = {name for name in current_record(run, "ingest").parts if name.startswith(record.stem)}
    tar.unlink()
    for overrides in ([], ["ingest.val_fraction=0.5"], []):  # another config does not hide it
        with pytest.raises(InputChangedError, match=f"are missing now: squares: {removed}; put them back"):
            drive(copy, *overrides)
    assert stage_files(run) == before
    tar.write_bytes(contents)
    assert drive(copy).jobs == []
    tar.unlink()
    drive(copy, accept_changes=True)
    assert f"1 sources were removed; their examples leave the dataset: squares: {removed}" in caplog.text
    caplog.clear()
    left = range(12, 24) if removed == "b.tar" else range(12)
    assert [sample["key"] for sample in samples(run)] == [f"squares/{i:06d}" for i in left]
    # Whoever asks the current folders for parts finds none of it.
    there = {path.stem for stage in STAGES for path in current_folder(run, stage).glob("*.parquet")}
    assert gone
    assert not gone & there
    assert not gone & {path.stem for path in run.glob("*/*/dead/*.parquet")}
    assert damaged(run) == []
    assert drive(copy).jobs == []
    assert "were removed" not in caplog.text
    for uri, _ in garbage(RunFolder(str(run))):
        files.remove(uri)
    assert not [path for path in run.rglob("*") if path.stem in gone]


def test_an_input_that_is_taken_out_of_the_config_needs_no_word_more(copy, caplog):
    other = {
        "name": "other",
        "format": "webdataset",
        "path": str(write_squares(copy.parent / "d.tar", 3, 40)),
    }
    config = json.loads(copy.read_text())
    inputs = config["inputs"]
    copy.write_text(json.dumps(config | {"inputs": [*inputs, other]}))
    drive(copy)
    copy.write_text(json.dumps(config))
    drive(copy)
    assert "1 sources were removed; their examples leave the dataset: other: d.tar" in caplog.text
    assert damaged(copy.parent / "run") == []
    assert len(samples(copy.parent / "run")) == 24


def test_an_input_with_another_name_is_told_what_that_costs(copy, caplog):
    before = json.loads(copy.read_text())
    inputs = [source | {"name": "renamed"} for source in before["inputs"]]
    copy.write_text(json.dumps(before | {"inputs": inputs}))
    said, _ = call("plan", copy)
    lines = said.splitlines()
    assert "  b.tar: its input was called squares" in lines
    assert "tag: up to 6 of 6 parts, as its inputs are made" in lines
    (record,) = caplog.records
    assert "input squares is called renamed now" in record.getMessage()
    made = drive(copy)
    assert len(made.tasks("tag")) == 6
    assert {sample["key"].partition("/")[0] for sample in samples(copy.parent / "run")} == {"renamed"}
    assert damaged(copy.parent / "run") == []


def test_a_removed_source_that_filled_a_shard_alone_leaves_the_manifest(tmp_path):
    config = squares_config(tmp_path, {"a.tar": (10, 0), "b.tar": (10, 10)}, embed=None)
    drive(config)
    os.unlink(tmp_path / "data" / "b.tar")
    drive(config, accept_changes=True)
    folder = current_folder(tmp_path / "run", "shards")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [shard["name"] for shard in manifest["shards"]] == ["train-000000"]
    assert manifest["examples"] == {"train": 10}
    assert [path.name for path in folder.glob("*.tar")] == ["train-000000.tar"]
    assert damaged(tmp_path / "run") == []


def test_other_fields_of_an_input_make_its_sources_anew(copy):
    run = copy.parent / "run"
    config = json.loads(copy.read_text())
    config["inputs"][0]["labels"] = None
    copy.write_text(json.dumps(config))
    assert set(plans(copy)["ingest"].reasons) == {
        'b.tar: its input\'s labels "truth" -> null',
        'c.tar: its input\'s labels "truth" -> null',
    }
    made = drive(copy)
    assert len(made.tasks("ingest")) == 2
    assert {row["given"] for row in rows_of(run, "clean")} == {0}
    assert all("truth" in json.loads(row["meta"]) for row in rows_of(run, "ingest"))
    assert damaged(run) == []


@pytest.mark.parametrize("format_", ["jsonl", "folder", "webdataset"])
def test_a_change_that_keeps_size_and_time_is_found_when_sources_are_checked(tmp_path, format_):
    """An image, or beside it a caption; both are as long as what was there before."""
    data, colours = tmp_path / "photos", {"red": 0, "blue": 1}
    data.mkdir()

    def write(shown: str, caption: str) -> None:
        images = {f"{name}.png": padded(square_image([shown if name == "red" else name])) for name in colours}
        if format_ == "webdataset":
            contents = {**images, "red.txt": caption.encode()}
            write_tar(data / "a.tar", [(name, contents[name]) for name in sorted(contents)])
        else:
            for name, image in images.items():
                (data / name).write_bytes(image)
            (data / "red.txt").write_text(caption)
            lines = [{"image": f"{name}.png", "caption": caption} for name in colours]
            (data / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
        for path in data.iterdir():
            os.utime(path, (1_000_000, 1_000_000))

    patterns = {"jsonl": "a.jsonl", "folder": "", "webdataset": "a.tar"}
    source = {"name": "a", "format": format_, "path": str(data / patterns[format_]).rstrip("/")}
    config = squares_config(tmp_path, {}, inputs=[source], parse={"mode": "fast"}, embed=None, localize=None)
    write("red", "a red square")
    drive(config)
    for shown, caption in (("green", "a red square"), ("green", "a sad square")):
        write(shown, caption)
        assert drive(config).jobs == []
        with pytest.raises(InputChangedError, match="changed since it was ingested; put the old file back"):
            drive(config, check_sources=True)
        drive(config, check_sources=True, accept_changes=True)
        assert drive(config, check_sources=True).jobs == []
        (sample,) = (one for one in samples(tmp_path / "run") if one["key"] == "a/red")
        assert sample["captions"][0]["text"] == caption
        assert "green" in {tag["tag"] for tag in sample["tags"] if tag["verdict"] == "kept"}
        assert damaged(tmp_path / "run") == []


def padded(image: object) -> bytes:
    """An image's bytes, of a length that does not depend on what it shows."""
    return encode(image).ljust(4_000, b"\0")


def test_an_image_that_changed_beside_its_json_lines_comes_in_when_its_part_is_removed(tmp_path):
    photos, lines = tmp_path / "photos", tmp_path / "photos" / "a.jsonl"
    photos.mkdir()
    for place, name in enumerate(("red", "blue")):
        (photos / f"{name}.png").write_bytes(encode(square_image([name], place)))
    lines.write_text('{"image": "red.png"}\n{"image": "blue.png"}\n')
    inputs = [{"name": "a", "format": "jsonl", "path": str(lines)}]
    off = dict.fromkeys(("tag", "localize", "embed"))
    config = squares_config(tmp_path, {}, inputs=inputs, part_size=1, **off)
    drive(config)
    (photos / "red.png").write_bytes(encode(square_image(["green"])))
    with pytest.raises(InputChangedError, match=r"image of a/red changed .* remove its part"):
        drive(config, "shards.size=9999")
    for path in current_folder(tmp_path / "run", "ingest").glob("*-00000.parquet"):
        path.unlink()
    drive(config, "shards.size=9999")
    assert damaged(tmp_path / "run") == []
    assert [sample["key"] for sample in samples(tmp_path / "run")] == ["a/red", "a/blue"]
