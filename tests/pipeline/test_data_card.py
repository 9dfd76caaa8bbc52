"""The data card as readers of other programs find it."""

import json
from collections import Counter

import datasets
import pyarrow.parquet as pq

from runs import current_folder, drive, rows_of, samples, squares_config, tagmill
from sources import encode, members, square_image, write_tar
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.report import write_report
from tagmill.tag_system.shard_contract import EXTENSIONS
from tagmill.tag_system.vocabulary import Vocabulary


def test_the_datasets_library_reads_a_folder_of_shards_whose_images_have_many_formats(tmp_path, monkeypatch):
    contents = []
    for number in range(16):
        image = square_image(["red", "blue"][: 1 + number % 2], number)
        kind = ("JPEG", "PNG", "WEBP")[number // 6]
        contents.append((f"{number:02}.{EXTENSIONS[kind]}", encode(image, kind)))
        fields = {"split": ("train", "val")[number % 5 == 0], "truth": ["red"] * (number > 7)}
        contents.append((f"{number:02}.json", json.dumps(fields).encode()))
    write_tar(tmp_path / "data" / "a.tar", contents)
    config = squares_config(tmp_path, {})
    drive(config)
    shards = current_folder(tmp_path / "run", "shards")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = datasets.load_dataset(str(shards), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 12, "validation": 4}
    assert found["train"].features == found["validation"].features
    for row in (*found["train"], *found["validation"]):
        record = row["json"]
        (image,) = [row[name] for name in ("jpg", "png", "webp") if row[name] is not None]
        assert image.size == (record["width"], record["height"])
        assert {tag["verdict"] for tag in record["tags"]} <= {"kept", "dropped", "uncertain"}
        boxes = [box for tag in record["tags"] for said in tag["evidence"] for box in said["boxes"] or ()]
        assert all(len(box) == 5 for box in boxes)
        assert row["__key__"] == record["key"].replace("/", "%2F")


def status(run):
    """What `tagmill status` prints, in one line."""
    return " ".join(tagmill("status", run).stdout.split())


def test_the_card_says_what_vouches_for_the_kept_tags_and_that_nobody_checked_them(tmp_path):
    picture, fields = members("000020", 20).values()
    named = json.dumps({**json.loads(fields), "truth": ["red", "tidy"]}).encode()
    write_tar(tmp_path / "data" / "b.tar", [("000020.png", picture), ("000020.json", named)])
    drive(squares_config(tmp_path, {"a.tar": (12, 0)}))
    folder = current_folder(tmp_path / "run", "shards")
    card = (folder / "README.md").read_text()
    kept = [t["basis"] for s in samples(tmp_path / "run") for t in s["tags"] if t["verdict"] == "kept"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["kept_by"] == dict(Counter(kept))
    assert f"a look at a box for {kept.count('region')} ({kept.count('region') / len(kept):.0%})" in card
    assert "Nobody has checked" in card
    assert f"kept tags rest on: a look at a box for {kept.count('region')} (" in status(tmp_path / "run")
    write_report(RunFolder(str(tmp_path / "run")), Vocabulary.load(str(tmp_path / "vocabulary.tsv")))
    tags = pq.read_table(tmp_path / "run" / "report" / "tags.parquet").to_pylist()
    assert sum(row["kept"] for row in tags) == len(kept)
    assert sum((Counter(dict(row["kept_by"])) for row in tags), Counter()) == Counter(kept)
    assert all(row["proposed"] == row["kept"] + row["dropped"] + row["uncertain"] for row in tags)
    assert all(row["images"] == row["proposed"] + row["not_proposed"] for row in tags)
    # The tagger has no class for it: that is told from a low score.
    assert {row["tag"]: row["unknown"] for row in tags if row["unknown"]} == {"tidy": 1}
    shown = tagmill("inspect", tmp_path / "run", "squares/000020").stdout
    assert {"n/a" in line for line in shown.splitlines() if line.startswith("tidy ")} == {True}
    assert {"n/a" in line for line in shown.splitlines() if line.startswith("red ")} == {False}
    decided = rows_of(tmp_path / "run", "clean")
    assert {row["tag"] for row in decided if row["tagger"] is None} == {"tidy"}
    assert not [row for row in decided if row["tagger"] is None and row["rule"] == "not_proposed"]
