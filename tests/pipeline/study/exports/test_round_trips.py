"""What was exported and is read again has the same tags, boxes, captions and pictures."""

import json

import pytest

from runs import CountingEngine, Quiet, rows_of, samples
from sources import write_config
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver


def ingested(folder, inputs):
    """The examples of a new run over `inputs`, by the key that they had before or the name of their image."""
    folder.mkdir()
    config = write_config(folder, inputs=inputs)
    Driver(load_config(str(config), []), until="ingest").run(CountingEngine(), Quiet())
    return rows_of(folder / "run", "ingest")


def rounded(box):
    return None if box is None else tuple(round(number, 2) for number in box)


def test_coco_gives_the_same_tags_and_boxes(export_to, exported_run, tmp_path):
    folder = export_to("coco")
    inputs = [
        {
            "name": split,
            "format": "coco",
            "path": str(folder / f"annotations/captions_{split}.json"),
            "images": str(folder / "images" / split),
            "options": {"instances": str(folder / f"annotations/instances_{split}.json")},
            "split": split,
        }
        for split in ("train", "val")
    ]
    found = {json.loads(row["meta"])["key"]: row for row in ingested(tmp_path / "again", inputs)}
    before = {sample["key"]: sample for sample in samples(exported_run)}
    assert found.keys() == before.keys()
    for key, sample in before.items():
        row = found[key]
        wanted = []
        for tag in sample["tags"]:
            if tag["verdict"] == "kept":
                boxes = [box for entry in tag["evidence"] for box in entry.get("boxes", [])]
                wanted += [(tag["tag"], rounded(box[:4])) for box in boxes] or [(tag["tag"], None)]
        again = [(one["name"], rounded(one["box"])) for one in row["labels"]]
        assert sorted(again, key=str) == sorted(wanted, key=str)
        assert [row[name] for name in ("width", "height", "split")] == [
            sample[name] for name in ("width", "height", "split")
        ]
        assert row["captions"] == [caption["text"] for caption in sample["captions"]]
        assert "tags" not in json.loads(row["meta"])


@pytest.mark.parametrize("parsed", ["union", "trust"])
def test_ram_gives_the_same_tags(export_to, exported_run, tmp_path, parsed):
    folder = export_to("ram")
    inputs = [
        {
            "name": split,
            "format": "ram",
            "path": str(folder / f"annotations/{split}.json"),
            "images": str(folder),
            "options": {"parsed": parsed, "tags": str(folder / "tag_list.txt")},
        }
        for split in ("train", "val")
    ]
    rows = ingested(tmp_path / "again", inputs)
    before = samples(exported_run)
    assert len(rows) == len(before)
    for sample in before:
        texts = [caption["text"] for caption in sample["captions"]]
        (row,) = [row for row in rows if [text for text in row["captions"] if text] == texts]
        kept = {tag["tag"] for tag in sample["tags"] if tag["verdict"] == "kept"}
        named = {mention["tag"] for caption in sample["captions"] for mention in caption["mentions"]}
        assert {label["name"] for label in row["labels"]} == (kept if parsed == "union" else named)
        assert (row["width"], row["height"]) == (sample["width"], sample["height"])
