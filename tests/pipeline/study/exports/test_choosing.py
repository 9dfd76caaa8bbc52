"""What is chosen, what is refused in a line, and that nothing half-written is left."""

import json
import shutil
import sys

import fsspec
import pyarrow.parquet as pq
import pytest

from commands import call
from runs import samples
from tagmill.pipeline.study.exports.pictures import file_stem


def keys(folder):
    return set(pq.read_table(folder / "examples.parquet")["key"].to_pylist())


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("meta->>'$.license' = 'CC-BY-4.0' AND (meta->'$.number')::INT < 2", {"in/plain", "in/turned"}),
        ("list_contains(tags, 'tidy') OR format = 'WEBP'", {"in/plain", "odd"}),
        ("orientation > 1", {"in/turned"}),
        ("len(tags) = 0 AND split = 'train'", {"in/bare"}),
        ("list_contains(labels, 'red') AND len(captions) > 0 AND width = 96", {"in/turned"}),
    ],
)
def test_an_expression_chooses_examples(export_to, exported_run, where, chosen):
    odd = next(one["key"] for one in samples(exported_run) if one["format"] == "WEBP")
    folder = export_to("parquet", "--where", where)
    assert keys(folder) == {odd if key == "odd" else key for key in chosen}
    assert f"`{where}`: {4 - len(chosen)} others are left out" in (folder / "LOST.md").read_text()


def test_splits_and_verdicts_are_chosen(export_to, exported_run):
    for split, verdicts in (("val", "dropped,uncertain"), ("train", "kept")):
        folder = export_to("parquet", "--split", split, "--verdicts", verdicts)
        there = [one for one in samples(exported_run) if one["split"] == split]
        decisions = pq.read_table(folder / "decisions.parquet").to_pylist()
        assert keys(folder) == {one["key"] for one in there}
        assert [(d["tag"], d["verdict"]) for d in decisions] == [
            (t["tag"], t["verdict"]) for one in there for t in one["tags"] if t["verdict"] in verdicts
        ]
        assert decisions


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--to", "cocoa"], "unknown export 'cocoa': did you mean coco?"),
        (["--to", "coco", "--size", 3], "--size is not for coco: leave it out"),
        (["--to", "coco", "--verdicts", "good"], "--verdicts: 'good' is not one of kept, dropped, uncertain"),
        (["--to", "coco", "--split", "dev"], "--split: 'dev' is not one of train, val, test"),
        (["--to", "coco", "--split", "test"], "none of 0 examples is chosen; nothing is written"),
        (["--to", "coco", "--where", "width >"], "--where 'width >': Parser Error"),
        (["--to", "coco", "--where", "wide = 3"], "it may name the columns key, split, width"),
        (
            ["--to", "coco", "--where", "meta::INT = 3"],
            "--where 'meta::INT = 3', of the example in/plain: ",
        ),
        (["--to", "coco", "--where", "1) UNION SELECT (1"], "--where"),
        (["--to", "coco", "--where", "EXISTS (FROM '/etc/passwd')"], "--where"),
        (["--to", "yolo", "--classes", "nothing.txt"], "--classes nothing.txt cannot be read"),
        (
            ["--to", "json:loads"],
            "export 'json:loads' must extend tagmill.pipeline.",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(exported_run, tmp_path, options, said):
    _, err = call("export", exported_run, *options, tmp_path / "out", code=2)
    (line,) = err.splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())


def test_a_place_that_holds_something_is_left_alone(exported_run, shards, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    for place, said in (
        (full, "is not an empty folder"),
        (full / "mine", "is not an empty folder"),
        ("memory://out", "is not on this machine"),
        (exported_run / "out", "which is exported"),
    ):
        _, err = call("export", exported_run, "--to", "parquet", place, code=2)
        assert said in err
    _, err = call("export", tmp_path, "--to", "parquet", tmp_path / "out", code=2)
    assert "is neither a run folder, with run.yaml, nor a dataset" in err
    assert [path.name for path in tmp_path.glob("**/*")] == ["full", "mine"]
    empty = tmp_path / "empty"
    empty.mkdir()
    out, _ = call("export", shards, "--to", "parquet", empty)  # the dataset itself, without its run
    assert f"{empty}: parquet, 4 examples (train 3, val 1)" in out
    assert len(keys(empty)) == 4


def test_a_dataset_in_another_store_is_exported(shards, tmp_path):
    store = fsspec.filesystem("memory")
    store.put(str(shards), "/exported", recursive=True)
    call("export", "memory://exported", "--to", "yolo", tmp_path / "there")
    call("export", shards, "--to", "yolo", tmp_path / "here")
    there, here = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "there", tmp_path / "here")
    )
    assert there == here
    store.rm("/exported", recursive=True)


@pytest.mark.parametrize("to", ["coco", "hf", "webdataset", "yolo"])
def test_damage_ends_an_export_and_leaves_nothing(shards, tmp_path, to):
    copy, out = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(shards, copy)
    tar = copy / "val-000000.tar"  # the last one: others are written already
    data = bytearray(tar.read_bytes())
    data[700] ^= 1  # of the image
    tar.write_bytes(data)
    _, err = call("export", copy, "--to", to, out, code=5)
    assert "val-000000.tar" in err
    assert "does not match its sha256; copy the shard again" in err
    tar.write_bytes(data[:-2048])
    _, err = call("export", copy, "--to", to, out, code=5)
    assert "the manifest says" in err
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_an_export_of_ones_own_has_a_dotted_name(export_to, exported_run):
    folder = export_to("own_exports:TagCounts", "--verdicts", "kept")
    found = json.loads((folder / "counts.json").read_text())
    kept = [t["tag"] for one in samples(exported_run) for t in one["tags"] if t["verdict"] == "kept"]
    assert found == {tag: kept.count(tag) for tag in kept}
    assert "| scores of the tagger and of boxes |" in (folder / "LOST.md").read_text()


def test_without_duckdb_the_line_says_what_to_install(exported_run, tmp_path, monkeypatch):
    from tagmill.tag_system.core import extras

    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        call("export", exported_run, "--to", "coco", "--where", "width > 3", tmp_path / "out")
    assert extras.lacking(caught.value) == "duckdb is not installed: pip install 'tagmill[sql]'"
    assert not list(tmp_path.iterdir())


def test_long_keys_get_short_names_of_their_own():
    first, second = (file_stem("文" * 300 + end) for end in "ab")
    assert first != second
    assert max(len(first), len(second)) <= 180
    assert file_stem("a/b.c") == "a%2Fb%2Ec"
