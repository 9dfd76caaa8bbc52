"""Open Images, Visual Genome and YOLO: labels and boxes of annotators, through runs."""

import json

import pytest
import yaml

from runs import current_folder, damaged, drive, rows_of, squares_config
from sources import COLOURS, square_image
from tagmill.tag_system.core.errors import ConfigError, InputChangedError
from turned import turned

STAGES = {"tag": None, "localize": None, "embed": None, "cluster": None, "duplicates": None}


@pytest.fixture
def over(tmp_path):
    """Write files by path, and the config of a run over an input."""

    def over(source, **contents):
        for path, text in contents.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text if isinstance(text, str) else json.dumps(text))
        values = {"name": "it", **source, "path": str(tmp_path / source["path"])}
        if "images" in source:
            values["images"] = str(tmp_path / source["images"])
        options = {name: str(tmp_path / path) for name, path in source.get("options", {}).items()}
        changes = {"ingest": {"val_fraction": 0}, "max_dead_fraction": 0.9, **STAGES}
        return squares_config(tmp_path, {}, inputs=[values | {"options": options}], **changes)

    return over


@pytest.fixture
def pictures(tmp_path):
    """Write pictures of 96 x 80 pixels, as stored; one lies on its side."""

    def pictures(*paths):
        for place, path in enumerate(paths):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            image = square_image([sorted(COLOURS)[place]], place)
            if "side" in path:
                (tmp_path / path).write_bytes(turned(image, 6, "JPEG"))
            else:
                image.save(tmp_path / path, "JPEG")

    return pictures


def labels(run):
    """Give each example's labels with boxes in whole pixels, by key."""
    return {
        row["key"]: [
            (one["name"], one["box"] and [round(side) for side in one["box"]]) for one in row["labels"]
        ]
        for row in rows_of(run, "ingest")
    }


OPEN_IMAGES = {
    "labels.csv": "ImageID,Source,LabelName,Confidence\nb,v,/m/1,1\nb,v,/m/2,0\na,v,/m/3,1\nb,v,/m/3,1\n",
    "boxes.csv": "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
    "b,x,/m/1,1,0.25,0.5,0.1,0.9,0,0,0\nb,x,/m/3,1,0,1,0,1,0,0,1\nlost,x,/m/1,1,0,1,0,1,0,0,0\n",
    "classes.csv": '/m/1,Dog\n/m/2,Cat\n/m/3,"Tree, old"\n',
}


@pytest.mark.parametrize("first", ["labels", "boxes"])
def test_open_images_gives_labels_boxes_and_what_is_absent(tmp_path, over, pictures, first):
    pictures("images/a.jpg", "images/b.jpg")
    (other,) = {"labels", "boxes"} - {first}
    options = {other: f"{other}.csv", "classes": "classes.csv"}
    source = {"format": "open-images", "path": f"{first}.csv", "images": "images", "options": options}
    drive(over(source, **OPEN_IMAGES))
    run = tmp_path / "run"
    assert labels(run) == {
        "it/b": [("Dog", [24, 8, 48, 72]), ("Tree, old", None)],
        "it/a": [("Tree, old", None)],
    }
    assert {json.loads(row["meta"]).get("absent", [None])[0] for row in rows_of(run, "ingest")} == {
        "Cat",
        None,
    }
    assert damaged(run) == []
    (tmp_path / "classes.csv").write_text("/m/1,Wolf\n")
    with pytest.raises(InputChangedError, match=f"{first}.csv changed"):
        drive(tmp_path / "config.yaml")


def test_visual_genome_joins_its_files_by_image(tmp_path, over, pictures):
    pictures("VG_100K/1.jpg", "VG_100K_2/2.jpg")
    box = {"x": 1, "y": 2, "w": 30, "h": 40}
    config = over(
        {
            "format": "visual-genome",
            "path": "objects.json",
            "images": ".",
            "options": {name: f"{name}.json" for name in ("attributes", "regions", "image_data")},
        },
        **{
            "objects.json": [
                {"image_id": 2, "objects": [{"names": ["dog", "puppy"], "object_id": 7, **box}]}
            ],
            "attributes.json": [
                {"image_id": 2, "attributes": [{"names": ["dog"], "attributes": ["brown"], **box}]}
            ],
            "regions.json": [
                {
                    "id": 1,
                    "regions": [
                        {"image_id": 1, "phrase": "a red square", "x": 1, "y": 2, "width": 3, "height": 4}
                    ],
                }
            ],
            "image_data.json": [
                {"image_id": 1, "width": 96, "height": 80, "url": "https://x/VG_100K/1.jpg"},
                {"image_id": 2, "width": 96, "height": 80, "url": "https://x/VG_100K_2/2.jpg"},
                {"image_id": 3, "url": "https://x/VG_100K/3.jpg"},
            ],
        },
    )
    drive(config)
    run = tmp_path / "run"
    assert labels(run) == {"it/2": [("dog", [1, 2, 31, 42]), ("brown", [1, 2, 31, 42])], "it/1": []}
    assert [row["captions"] for row in rows_of(run, "ingest")] == [[], ["a red square"]]
    meta = json.loads(rows_of(run, "ingest")[1]["meta"])
    assert meta["regions"] == [{"phrase": "a red square", "bbox": [1, 2, 3, 4]}]
    assert damaged(run) == []


YAML = {"train": "images/train", "val": ["images/val"], "names": {0: "dog", 1: "cat"}}


def test_yolo_gives_boxes_of_upright_pixels_by_split(tmp_path, over, pictures):
    pictures("images/train/a.jpg", "images/train/deep/side.jpg", "images/val/c.jpg")
    config = over(
        {"format": "yolo", "path": "data.yaml", "boxes": "upright"},
        **{
            "data.yaml": yaml.safe_dump(YAML),
            "labels/train/a.txt": "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.5 0.1 0.3 0.9\n9 0 0 1 1\n",
            "labels/train/deep/side.txt": "1 0.5 0.5 1 0.5\n",
        },
    )
    drive(config)
    run = tmp_path / "run"
    upright = next(row for row in rows_of(run, "ingest") if row["key"].endswith("side"))
    width, height = upright["width"], upright["height"]
    assert labels(run) == {
        "it/images/train/a": [("dog", [36, 20, 60, 60]), ("cat", [10, 8, 48, 72])],
        "it/images/train/deep/side": [("cat", [0, height // 4, width, height * 3 // 4])],
        "it/images/val/c": [],
    }
    assert [row["split"] for row in rows_of(run, "ingest")] == ["train", "train", "val"]
    assert any(current_folder(run, "ingest").glob("dead/*"))  # the line of a class that there is not
    assert damaged(run) == []
    assert drive(config).jobs == []
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "c.txt").write_text("0 0.5 0.5 1 1\n")
    with pytest.raises(InputChangedError, match=r"data.yaml#val changed"):
        drive(config)
    drive(config, accept_changes=True)
    assert labels(run)["it/images/val/c"] == [("dog", [0, 0, 96, 80])]


@pytest.mark.parametrize(
    ("source", "contents", "words"),
    [
        (
            {"format": "yolo"},
            {"data": "train: images"},
            "not a data.yaml of YOLO: it has no `names` of classes",
        ),
        (
            {"format": "yolo"},
            {"data": "names: [a]\ntrain: none"},
            "names no folder with images as train",
        ),
        (
            {"format": "open-images", "options": {"classes": "data"}},
            {"data": "image,label\n"},
            "has no column ImageID and LabelName; saw image, label",
        ),
        (
            {"format": "open-images"},
            {"data": ""},
            r"give the file of their names: options: {classes: class-descr",
        ),
        (
            {"format": "visual-genome"},
            {"data": [{"image_id": 1, "text": "x"}]},
            "of .* is none of .*: saw image_id, text",
        ),
    ],
    ids=["no yaml", "no images", "another table", "no classes", "another JSON"],
)
def test_what_is_another_thing_is_refused_in_a_line(over, source, contents, words):
    with pytest.raises(ConfigError, match=words):
        drive(over({**source, "path": "data"}, **contents))
