"""COCO's files: captions, instances and panoptic segments of one image set, joined by image id."""

import json

import pytest

from commands import call
from input_runs import ingest_input, run_ingested, run_input, write_images
from runs import damaged
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.tag_system.core.errors import ConfigError, InputChangedError

IMAGES = [
    {"id": 9, "file_name": "a.png", "width": 96, "height": 80, "license": 4, "date_captured": "2013"},
    {"id": 2, "file_name": "b.png", "width": 96, "height": 80},
    {"id": 5, "file_name": "c.png"},
]
LICENSES = [{"id": 4, "name": "CC BY", "url": "http://creativecommons.org/licenses/by/2.0/"}]
CATEGORIES = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 18, "name": "dog"}]


def write(folder, name, **lists):
    (folder / name).write_text(json.dumps({"info": {"year": 2017}, **lists}))
    return str(folder / name)


@pytest.fixture
def photos(tmp_path):
    write_images(tmp_path / "val", "a.png", "b.png", "c.png")
    captions = [
        {"id": 1, "image_id": 2, "caption": "b one"},
        {"id": 2, "image_id": 9, "caption": "a one"},
        {"id": 3, "image_id": 2, "caption": "b two\n"},
    ]
    write(tmp_path, "captions.json", images=IMAGES, licenses=LICENSES, annotations=captions)
    instances = [
        {
            "image_id": 2,
            "category_id": 18,
            "bbox": [1, 2, 10, 20.5],
            "segmentation": [[1.5] * 90],
            "iscrowd": 0,
        },
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 90, 70], "iscrowd": 1},
        {"image_id": 9, "category_id": 77, "bbox": [0, 0, 5, 5]},
        {"image_id": 9, "category_id": 1, "bbox": [0, 0, 5, 5]},
    ]
    write(tmp_path, "instances.json", annotations=instances, images=IMAGES[:2], categories=CATEGORIES)
    return tmp_path


def test_captions_and_instances_are_joined_by_the_command_line(photos):
    source = {"format": "coco", "path": str(photos / "captions.json"), "images": str(photos / "val")}
    run_input(photos, **source, options={"instances": str(photos / "instances.json")}, labels="labels")
    found = run_ingested(photos)
    assert found.captions == {"a": ["a one"], "b": ["b one", "b two"], "c": []}
    assert found.labels == {
        "a": [("person", [0, 0, 5, 5])],
        "b": [("dog", [1, 2, 11, 22.5]), ("person", None)],
        "c": [],
    }
    a, b, _ = (json.loads(row["meta"]) for row in found.rows)
    assert a == {"image_id": 9, "license": LICENSES[0], "date_captured": "2013", "width": 96, "height": 80}
    assert b["crowds"] == [{"bbox": [0, 0, 90, 70], "category_id": 1, "name": "person"}]
    ((key, reason, detail),) = found.dead
    assert (key, reason) == ("a", "label_invalid")
    assert "1 of 2 labels" in detail
    assert damaged(photos / "run") == []
    said, _ = call("plan", photos / "config.yaml", "--examples", 3)
    assert "segmentation (left out) 1" in said


def test_a_joined_file_that_changed_stops_the_run(photos):
    source = {"format": "coco", "path": str(photos / "captions.json"), "images": str(photos / "val")}
    run_input(photos, **source, options={"instances": str(photos / "instances.json")})
    write(photos, "instances.json", annotations=[], images=IMAGES, categories=CATEGORIES)
    with pytest.raises(InputChangedError, match=r"captions\.json changed"):
        next(iter(Driver(load_config(str(photos / "config.yaml"))).plan()))


def test_segments_of_stuff_have_no_box(photos):
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 187, "name": "sky", "isthing": 0}]
    segments = [
        {"id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]},
        {"id": 2, "category_id": 187, "bbox": [0, 0, 9, 9]},
    ]
    annotations = [{"image_id": 5, "file_name": "c_panoptic.png", "segments_info": segments}]
    path = write(photos, "panoptic.json", images=IMAGES, annotations=annotations, categories=categories)
    found = ingest_input(photos, format="coco", path=path, images=str(photos / "val"), labels="things")
    assert found.labels["c"] == [("person", [1, 1, 3, 3]), ("sky", None)]


def test_what_is_of_no_image_is_dead_by_itself(photos):
    annotations = [
        {"image_id": 77, "caption": "lost"},
        {"caption": "of nothing"},
        3,
        {"image_id": 9, "caption": 5},
        {"image_id": 9, "caption": "words"},
    ]
    images = [*IMAGES[:1], {"id": 3, "file_name": "../x.png"}, {"id": 4}, {"id": 9, "file_name": "a.png"}]
    path = write(photos, "it.json", annotations=annotations, images=images)
    found = ingest_input(photos, format="coco", path=path, images=str(photos / "val"))
    assert found.captions == {"a": [None, "words"]}
    assert sorted(letter[:2] for letter in found.dead) == [
        ("a", "caption_not_text"),
        ("it.json#annotations-2", "record_invalid"),
        ("it.json#annotations-3", "record_invalid"),
        ("it.json#image-3", "record_invalid"),
        ("it.json#image-4", "record_invalid"),
        ("it.json#image-77", "record_invalid"),
    ]


def test_one_id_of_two_images_gives_neither_what_is_said_of_the_other(photos):
    images = [IMAGES[0], {"id": 9, "file_name": "b.png"}]
    path = write(photos, "it.json", images=images, annotations=[])
    found = ingest_input(photos, format="coco", path=path, images=str(photos / "val"))
    assert found.rows == []
    assert "one id for a.png and b.png" in found.dead[0][2]


@pytest.mark.parametrize(
    ("data", "changes", "words"),
    [
        ("[{}]", {}, "is a JSON list, not COCO's object: use format json, or ram"),
        (
            "{}",
            {"options": {"instances": "nowhere.json"}},
            "no file nowhere.json, which the option instances names",
        ),
        ('{"a": 1}\n{"a": 2}', {}, "is JSON lines: use format jsonl"),
        ("{}", {"options": {"instances": 3}}, "instances is the path of a file, got 3"),
    ],
    ids=["list", "missing", "lines", "number"],
)
def test_what_cannot_be_is_one_line(photos, data, changes, words):
    (photos / "it.json").write_text(data)
    with pytest.raises((ConfigError, ValueError), match=words):
        ingest_input(photos, format="coco", path=str(photos / "it.json"), **changes)


def test_of_a_file_that_is_cut_no_image_is_read_that_might_lack_annotations(photos):
    data = (photos / "captions.json").read_text()
    (photos / "captions.json").write_text(data[: data.index("b two")])
    found = ingest_input(
        photos, format="coco", path=str(photos / "captions.json"), images=str(photos / "val")
    )
    assert (found.rows, [letter[1] for letter in found.dead]) == ([], ["source_truncated"])
