"""`tagmill init`: data as people have it, and a config that reads it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from commands import call
from input_runs import write_images
from sources import write_tar
from tagmill.pipeline.config import load_config

CAPTIONS = ["a red square", "a blue square"]
BOX = [1, 2, 30, 40]


def tars(folder):
    images = write_images(folder, "0.png", "1.png")
    contents = [(name, (folder / name).read_bytes()) for name in images]
    texts = [(f"{n}.txt", text.encode()) for n, text in enumerate(CAPTIONS)]
    for name in images:
        (folder / name).unlink()
    write_tar(folder / "shards" / "00000.tar", sorted([*contents, *texts]))
    return folder


def lines(folder):
    images = write_images(folder / "pictures", "a.png", "b.png")
    rows = [{"file_name": name, "text": text} for name, text in zip(images, CAPTIONS, strict=True)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "train.jsonl"


def coco(folder):
    images = write_images(folder / "train2017", "1.png", "2.png")
    listed = [{"id": n, "file_name": name, "width": 96, "height": 80} for n, name in enumerate(images)]
    annotations = [{"id": n, "image_id": n, "caption": text} for n, text in enumerate(CAPTIONS)]
    (folder / "annotations").mkdir()
    (folder / "annotations" / "captions.json").write_text(
        json.dumps({"images": listed, "annotations": annotations})
    )
    return folder / "annotations" / "captions.json"


def parquet(folder):
    write_images(folder, "0.png", "1.png")
    data = [{"bytes": (folder / f"{n}.png").read_bytes(), "path": None} for n in range(2)]
    (folder / "data").mkdir()
    pq.write_table(pa.table({"image": data, "caption": CAPTIONS}), folder / "data" / "0.parquet")
    return folder / "data"


def classes(folder):
    write_images(folder, "red/1.png", "blue/2.png")
    return folder


def yolo(folder):
    write_images(folder / "images" / "train", "1.png", "2.png")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text("train: images/train\nnames: [red]\n")
    return folder


@pytest.mark.parametrize(
    ("shape", "format_", "captions", "labels"),
    [
        (tars, "webdataset", 2, 0),
        (lines, "jsonl", 2, 0),
        (coco, "coco", 2, 0),
        (parquet, "parquet", 2, 0),
        (classes, "folder", 0, 2),
        (yolo, "yolo", 0, 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_data_of_each_shape_is_read_as_it_is_meant(tmp_path, monkeypatch, shape, format_, captions, labels):
    (tmp_path / "it").mkdir()
    path, output = shape(tmp_path / "it"), tmp_path / "mine.yaml"
    monkeypatch.chdir(tmp_path)
    said, _ = call("init", path, "--output", "mine.yaml", *(["--labels"] if labels else []))
    assert said.count("caption: ") == captions
    assert f": {format_}, " in said
    config = load_config(str(output))
    assert config.inputs[0].format == format_
    assert (config.parse is None) == bool(labels)
    assert "# fields: " in output.read_text() or format_ in ("folder", "yolo")
    call("run", "mine.yaml", "--workers", 0)
    ingested = json.loads(call("status", "runs/mine", "--json")[0])["stages"][0]
    assert (ingested["examples"]["out"], ingested["captions"]["in"]) == (2, captions)
    assert "exists; name another file" in call("init", path, "--output", "mine.yaml", code=2)[1]


def test_what_nobody_reads_is_said_in_a_line(tmp_path):
    (tmp_path / "notes.md").write_text("no data")
    output = tmp_path / "it.yaml"
    assert "no image in" in call("init", tmp_path, "--output", output, code=2)[1]
    urls = tmp_path / "list.tsv"
    urls.write_text("url\tcaption\n" + "http://e.org/1.jpg\ta cat\n" * 12)
    assert "img2dataset --url_list" in call("init", urls, "--output", output, code=2)[1]
    write_images(tmp_path / "two" / "photos", "1.png")
    assert (
        "none of the examples has a label"
        in call("init", tmp_path / "two" / "photos", "--output", output, "--labels", code=2)[1]
    )
    assert not output.exists()
    call("init", tmp_path / "two", f"{tmp_path}/two/photos", f"{tmp_path}/two/photos/", "--output", output)
    named = [source["name"] for source in yaml.safe_load(output.read_text())["inputs"]]
    assert named == ["two", "photos", "photos-3"]
