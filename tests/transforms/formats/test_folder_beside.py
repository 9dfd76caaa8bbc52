"""What is said of the images of a folder besides KEY.txt: KEY.json, KEY.caption, tables, folders' names."""

import json

import pytest

from input_runs import ingest_input, run_ingested, run_input, write_images
from runs import damaged
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    write_images(root, "a.png", "cat/b.jfif", "cat/c.png", "dog/d.png")
    return root


def source(root, **options):
    return {"format": "folder", "path": str(root), "options": options}


def test_all_that_lies_beside_an_image_counts_in_a_whole_run(photos, tmp_path):
    (photos / "a.json").write_text(json.dumps({"caption": "json", "labels": ["red"], "license": "CC"}))
    (photos / "a.txt").write_text("one\ntwo\n")
    (photos / "a.caption").write_text("three")
    table = "file_name,text,labels\nb.jfif,a cat,tabby\n./c.png,c,\n"
    (photos / "cat" / "metadata.csv").write_text(table)
    run_input(tmp_path, **source(photos, labels="folders"), dead=0)
    found = run_ingested(tmp_path)
    beside_a = ["json", "one", "two", "three"]
    assert found.captions == {"a": beside_a, "cat/b": ["a cat"], "cat/c": ["c"], "dog/d": []}
    labels = {key: [name for name, _ in values] for key, values in found.labels.items()}
    assert labels == {"a": ["red"], "cat/b": ["cat", "tabby"], "cat/c": ["cat"], "dog/d": ["dog"]}
    assert {row["key"]: row["meta"] for row in found.rows}["x/a"] == '{"license": "CC"}'
    assert damaged(tmp_path / "run") == []


def test_a_table_of_json_lines_is_hugging_faces_imagefolder(photos, tmp_path):
    lines = [
        {"file_name": "b.jfif", "text": "one", "objects": {"bbox": [[1, 2, 3, 4]], "categories": [0]}},
        {"file_name": "b.jfif", "text": "two"},
        {"file_name": "nowhere.png", "text": "x"},
        {"file_name": "sub/e.png"},
        {"text": "of nothing"},
    ]
    (photos / "cat" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = ingest_input(tmp_path, **source(photos))
    assert found.captions == {"a": [], "cat/b": ["one", "two"], "cat/c": [], "dog/d": []}
    assert sorted(letter[:2] for letter in found.dead) == [
        ("cat/metadata.jsonl#5", "record_invalid"),
        ("cat/metadata.jsonl#cat/nowhere.png", "image_missing"),
        ("cat/metadata.jsonl#cat/sub/e.png", "image_missing"),
    ]
    assert "use format jsonl with the table as its path" in str(found.dead)
    found = ingest_input(tmp_path, **source(photos, metadata="ignore"))
    assert (found.captions["cat/b"], found.dead) == ([], [])


def test_what_cannot_be_read_beside_an_image_is_lost_alone(photos, tmp_path):
    (photos / "a.json").write_text("[1]")
    (photos / "a.txt").write_text("words")
    (photos / "cat" / "metadata.csv").write_text("file_name\ttext\nb.jfif\tx\n")
    (tmp_path / "out.csv").write_text("file_name,text\nd.png,stolen\n")
    (photos / "dog" / "metadata.csv").symlink_to(tmp_path / "out.csv")
    found = ingest_input(tmp_path, **source(photos))
    assert found.captions == {"a": ["words"], "cat/b": [], "cat/c": [], "dog/d": []}
    assert sorted(letter[:2] for letter in found.dead) == [
        ("a", "meta_invalid"),
        ("cat/metadata.csv", "source_unreadable"),
        ("dog/metadata.csv", "link_refused"),
    ]


def test_named_extensions_alone_count(photos, tmp_path):
    (photos / "a.txt").write_text("text")
    (photos / "a.caption").write_text("caption")
    for name, caption in (("caption", "caption"), ("txt", "text")):
        assert ingest_input(tmp_path, **source(photos), captions=[name]).captions["a"] == [caption]


def test_a_table_above_all_images_is_told_in_one_line(tmp_path):
    root = tmp_path / "photos"
    write_images(root, "train/a.png")
    path = root / "metadata.jsonl"
    path.write_text(json.dumps({"file_name": "train/a.png", "text": "x"}))
    with pytest.raises(ConfigError) as caught:
        ingest_input(tmp_path, **source(root))
    remedy = f"use format jsonl, path {path}; or leave it out by `options: {{metadata: ignore}}`"
    assert remedy in str(caught.value)
    assert ingest_input(tmp_path, format="jsonl", path=str(path)).captions == {"train/a": ["x"]}
    assert list(ingest_input(tmp_path, **source(root, metadata="ignore")).captions) == ["train/a"]


@pytest.mark.parametrize("options", [{"labels": "names"}, {"metadata": "read"}], ids=str)
def test_an_option_that_there_is_not_is_refused(photos, tmp_path, options):
    with pytest.raises(ValueError, match=r"or left out, got '\w+'"):
        ingest_input(tmp_path, **source(photos, **options))
