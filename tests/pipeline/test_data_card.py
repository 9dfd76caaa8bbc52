"""The data card as readers of other programs find it."""

import json

import pytest

from runs import current_folder, drive, squares_config
from sources import encode, square_image, write_tar
from tagmill.tag_system.shard_contract import EXTENSIONS

datasets = pytest.importorskip("datasets", reason="pip install datasets")


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
