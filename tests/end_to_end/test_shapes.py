"""Data in the shapes in which people hold it: each is read by what `tagmill init` writes, or by the config
that docs/inputs.md shows for it.
"""

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
import zstandard

from commands import call
from input_runs import Ingested, write_images
from runs import current_folder
from sources import VOCABULARY, write_tar

ONE, TWO = "a red square", "a blue square"
BOX = [1, 2, 31, 42]
"""A box as corners; as COCO writes it, it is [1, 2, 30, 40]."""

Said = tuple[list[str], list[tuple[str, list[float] | None]]]


@dataclass
class Shape:
    """What lies on disk, and what an example is to have: captions, and labels with boxes.

    Attributes:
        path: What `tagmill init` is given.
        config: An input as docs/inputs.md shows it, where `init` cannot know what is meant.
        examples: Captions and labels by key.
        dead: Reasons, by key.
    """

    path: Path
    examples: dict[str, Said]
    config: dict[str, Any] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)


def captioned(first: str, second: str) -> dict[str, Said]:
    return {first: ([ONE], []), second: ([TWO], [])}


def taken(folder: Path, *names: str) -> list[bytes]:
    """The bytes of images that lie in no file."""
    write_images(folder, *names)
    found = [(folder / name).read_bytes() for name in names]
    for name in names:
        (folder / name).unlink()
    return found


def write(path: Path, what: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(what if isinstance(what, str) else json.dumps(what), encoding="utf-8")
    return path


def downloaded(number: int, caption: str) -> dict[str, Any]:
    """What img2dataset notes of an image."""
    return {
        "caption": caption,
        "url": f"https://example.org/{number}.jpg",
        "key": f"{number:09d}",
        "status": "success",
        "error_message": None,
        "width": 96,
        "height": 80,
        "original_width": 640,
        "original_height": 480,
        "exif": "{}",
    }


STATS = {"count": 3, "successes": 2, "failed_to_download": 1, "status_dict": {"success": 2, "HTTP 404": 1}}


def img2dataset_tars(folder: Path) -> Shape:
    images = taken(folder, "0.jpg", "1.jpg")
    contents = []
    for number, caption in enumerate([ONE, TWO]):
        said = {"json": json.dumps(downloaded(number, caption)).encode(), "txt": caption.encode()}
        contents += [(f"{number:09d}.jpg", images[number])]
        contents += [(f"{number:09d}.{name}", data) for name, data in said.items()]
    write_tar(folder / "00000.tar", contents)
    rows = [downloaded(0, ONE), downloaded(1, TWO), downloaded(2, "lost") | {"status": "failed_to_download"}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    write(folder / "00000_stats.json", STATS)
    return Shape(folder, captioned("000000000", "000000001"))


def img2dataset_files(folder: Path) -> Shape:
    for number, caption in enumerate([ONE, TWO]):
        write_images(folder, f"00000/{number:09d}.jpg")
        write(folder / "00000" / f"{number:09d}.txt", caption)
        write(folder / "00000" / f"{number:09d}.json", downloaded(number, caption))
    pq.write_table(pa.Table.from_pylist([downloaded(0, ONE), downloaded(1, TWO)]), folder / "00000.parquet")
    write(folder / "00000_stats.json", STATS)
    return Shape(folder, captioned("00000/000000000", "00000/000000001"))


def img2dataset_parquet(folder: Path) -> Shape:
    images = taken(folder, "0.jpg", "1.jpg")
    rows = [{"jpg": images[n], **downloaded(n, caption)} for n, caption in enumerate([ONE, TWO])]
    rows.append({"jpg": None, **downloaded(2, "lost"), "status": "failed_to_download"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    return Shape(folder, captioned("000000000", "000000001"), dead={"000000002": "image_missing"})


def laion_beside_images(folder: Path) -> Shape:
    paths = write_images(folder / "images", "a/1.jpg", "b/2.jpg")
    rows = [
        {"URL": f"https://e.org/{n}", "TEXT": text, "similarity": 0.3, "path": paths[n]}
        for n, text in enumerate([ONE, TWO])
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-00000.parquet")
    config = {"format": "parquet", "path": str(folder / "*.parquet"), "images": str(folder / "images")}
    config |= {"image": ["path"], "captions": ["TEXT"]}
    return Shape(folder, captioned("a/1", "b/2"), config)


def hugging_face_parquet(folder: Path) -> Shape:
    images = [{"bytes": data, "path": f"{n}.jpg"} for n, data in enumerate(taken(folder, "0.jpg", "1.jpg"))]
    table = pa.table({"image": images, "text": [ONE, TWO], "label": [1, 0]})
    features = {"label": {"_type": "ClassLabel", "names": ["blue", "red"]}, "image": {"_type": "Image"}}
    note = json.dumps({"info": {"features": features}})
    (folder / "data").mkdir()
    pq.write_table(
        table.replace_schema_metadata({"huggingface": note}), folder / "data" / "train-00000-of-00001.parquet"
    )
    config = {"format": "parquet", "path": str(folder / "data" / "train-*.parquet")}
    config |= {"captions": ["text"], "labels": "label"}
    examples: list[Said] = [([ONE], [("red", None)]), ([TWO], [("blue", None)])]
    stem = "train-00000-of-00001"
    return Shape(folder, {f"{stem}/{n:09d}": said for n, said in enumerate(examples)}, config)


def imagefolder_with_lines(folder: Path) -> Shape:
    for split, text in [("train", ONE), ("test", TWO)]:
        write_images(folder / split, f"{split}.jpg")
        write(folder / split / "metadata.jsonl", {"file_name": f"{split}.jpg", "text": text})
    return Shape(folder, captioned("train/train", "test/test"))


def imagefolder_with_csv(folder: Path) -> Shape:
    write_images(folder, "1.jpg", "2.jpg")
    write(folder / "metadata.csv", f'file_name,text\n1.jpg,{ONE}\n2.jpg,"{TWO}"\n')
    return Shape(folder, captioned("1", "2"))


def class_folders(folder: Path) -> Shape:
    write_images(folder, "red/1.jpg", "blue/2.jpg")
    config = {"format": "folder", "path": str(folder), "options": {"labels": "folders"}}
    return Shape(folder, {"red/1": ([], [("red", None)]), "blue/2": ([], [("blue", None)])}, config)


def kohya(folder: Path) -> Shape:
    write_images(folder, "10_squares/1.png", "10_squares/2.png")
    write(folder / "10_squares" / "1.txt", ONE + "\n")
    write(folder / "10_squares" / "2.caption", TWO)
    return Shape(folder, captioned("10_squares/1", "10_squares/2"))


def coco_file(folder: Path, annotations: list[dict[str, Any]], **more: Any) -> Path:
    names = write_images(folder / "val2017", "000000000001.jpg", "000000000002.jpg")
    images = [{"id": n + 1, "file_name": name, "width": 96, "height": 80} for n, name in enumerate(names)]
    return write(folder / "annotations" / "it.json", {"images": images, "annotations": annotations} | more)


def coco_captions(folder: Path) -> Shape:
    said = [(1, ONE), (2, TWO), (1, "a square")]
    path = coco_file(folder, [{"id": n, "image_id": i, "caption": text} for n, (i, text) in enumerate(said)])
    return Shape(path, {"000000000001": ([ONE, "a square"], []), "000000000002": ([TWO], [])})


CATEGORIES = [
    {"id": 1, "name": "red", "supercategory": "thing", "isthing": 1},
    {"id": 90, "name": "blue", "supercategory": "stuff", "isthing": 0},
]


def coco_instances(folder: Path) -> Shape:
    shared = {"image_id": 1, "category_id": 1, "area": 9.0, "segmentation": [[1, 2, 3, 4, 5, 6]]}
    annotations = [{"id": 7, "bbox": [1, 2, 30, 40], "iscrowd": 0, **shared}]
    categories = [category | {"isthing": 1} for category in CATEGORIES]
    path = coco_file(folder, annotations, categories=categories)
    return Shape(path, {"000000000001": ([], [("red", BOX)]), "000000000002": ([], [])})


def coco_panoptic(folder: Path) -> Shape:
    segments = [
        {"id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 9, "iscrowd": 0},
        {"id": 2, "category_id": 90, "bbox": [0, 0, 96, 80], "area": 9, "iscrowd": 0},
    ]
    annotations = [{"image_id": 1, "file_name": "000000000001.png", "segments_info": segments}]
    path = coco_file(folder, annotations, categories=CATEGORIES)
    return Shape(path, {"000000000001": ([], [("red", BOX), ("blue", None)]), "000000000002": ([], [])})


def flickr30k(folder: Path) -> Shape:
    write_images(folder / "flickr30k_images", "1.jpg", "2.jpg")
    lines = ["image_name| comment_number| comment", f"1.jpg| 0| {ONE} .", f"1.jpg| 1| {TWO}"]
    path = write(folder / "results.csv", "\n".join([*lines, "2.jpg| 0| a square", "1.jpg| 2| it , again"]))
    config = {"format": "csv", "path": str(path), "images": str(folder / "flickr30k_images")}
    config |= {"image": ["image_name"], "captions": ["comment"], "options": {"delimiter": "|", "group": True}}
    return Shape(path, {"1": ([f"{ONE} .", TWO, "it , again"], []), "2": (["a square"], [])}, config)


def llava(folder: Path) -> Shape:
    names = write_images(folder / "images", "coco/1.jpg", "gqa/2.jpg")
    items: list[dict[str, Any]] = [
        {
            "id": name,
            "image": name,
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is this?"},
                {"from": "gpt", "value": text},
            ],
        }
        for name, text in zip(names, [ONE, TWO], strict=True)
    ]
    items.append({"id": "words alone", "conversations": [{"from": "human", "value": "Hello"}]})
    path = write(folder / "llava.json", items)
    return Shape(path, captioned("coco/1", "gqa/2"), dead={"llava.json#3": "record_invalid"})


def cc3m(folder: Path) -> Shape:
    """Conceptual Captions, whose images somebody downloaded: caption and path, and no names of columns."""
    write_images(folder / "images", "1.jpg", "2.jpg")
    path = write(folder / "Train.tsv", f"{ONE}\timages/1.jpg\n{TWO}\timages/2.jpg\n")
    config = {"format": "tsv", "path": str(path), "options": {"columns": ["caption", "image"]}}
    return Shape(path, captioned("images/1", "images/2"), config)


def ram(folder: Path) -> Shape:
    write_images(folder / "visual-genome", "1.jpg", "2.jpg")
    items = [
        {
            "image_path": f"visual-genome/{n}.jpg",
            "caption": [text, "a square"],
            "union_label_id": [0],
            "parse_label_id": [[1 - n % 2], []],
        }
        for n, text in [(1, ONE), (2, TWO)]
    ]
    path = write(folder / "vg_ram.json", items)
    write(folder / "tags.txt", "red\nblue\n")
    options = {"parsed": "trust", "tags": str(folder / "tags.txt")}
    config = {"format": "ram", "path": str(path), "images": str(folder), "options": options}
    examples = {"visual-genome/1": ([ONE, "a square"], [("red", None)])}
    examples |= {"visual-genome/2": ([TWO, "a square"], [("blue", None)])}
    return Shape(path, examples, config)


def open_images(folder: Path) -> Shape:
    write_images(folder / "images", "a1.jpg", "b2.jpg")
    labels = "ImageID,Source,LabelName,Confidence\na1,verification,/m/1,1\nb2,verification,/m/2,1\n"
    boxes = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
    path = write(folder / "labels.csv", labels)
    write(folder / "boxes.csv", boxes + "a1,xclick,/m/1,1,0.25,0.5,0.1,0.9,0,0,0\n")
    write(folder / "classes.csv", "/m/1,Red\n/m/2,Blue\n")
    options = {name: str(folder / f"{name}.csv") for name in ("boxes", "classes")}
    config = {"format": "open-images", "path": str(path), "images": str(folder / "images")}
    examples = {"a1": ([], [("Red", [24, 8, 48, 72])]), "b2": ([], [("Blue", None)])}
    return Shape(path, examples, config | {"options": options})


def visual_genome(folder: Path) -> Shape:
    write_images(folder, "VG_100K/1.jpg", "VG_100K_2/2.jpg")
    box = {"x": 1, "y": 2, "w": 30, "h": 40}
    urls = [f"https://cs.stanford.edu/people/{place}.jpg" for place in ("VG_100K/1", "VG_100K_2/2")]
    objects = [
        {"image_id": 1, "image_url": urls[0], "objects": [{"names": ["red"], "object_id": 5, **box}]},
        {"image_id": 2, "image_url": urls[1], "objects": []},
    ]
    region = {"region_id": 1, "image_id": 2, "phrase": TWO, "x": 1, "y": 2, "width": 3, "height": 4}
    path = write(folder / "objects.json", objects)
    write(folder / "region_descriptions.json", [{"id": 2, "regions": [region]}])
    write(folder / "image_data.json", [{"image_id": n + 1, "url": url} for n, url in enumerate(urls)])
    options = {"regions": "region_descriptions", "image_data": "image_data"}
    config = {"format": "visual-genome", "path": str(path), "images": str(folder)}
    config["options"] = {name: str(folder / f"{file}.json") for name, file in options.items()}
    return Shape(path, {"1": ([], [("red", BOX)]), "2": ([TWO], [])}, config)


def yolo(folder: Path) -> Shape:
    write_images(folder, "images/train/1.jpg", "images/val/2.jpg")
    write(folder / "labels" / "train" / "1.txt", "0 0.5 0.5 0.25 0.5\n")
    write(folder / "data.yaml", "train: images/train\nval: images/val\nnc: 1\nnames: [red]\n")
    return Shape(folder, {"images/train/1": ([], [("red", [36, 20, 60, 60])]), "images/val/2": ([], [])})


def classes_of_tars(folder: Path) -> Shape:
    images = taken(folder, "0.jpg", "1.jpg")
    contents = [
        (f"n{n}.{name}", data) for n in (0, 1) for name, data in [("jpg", images[n]), ("cls", b"%d" % n)]
    ]
    write_tar(folder / "train-0000.tar", contents)
    names = write(folder / "classes.txt", "red\nblue\n")
    config = {"format": "webdataset", "path": str(folder / "*.tar"), "options": {"classes": str(names)}}
    return Shape(folder, {"n0": ([], [("red", None)]), "n1": ([], [("blue", None)])}, config)


def packed_json(folder: Path) -> Shape:
    names = write_images(folder, "1.jpg", "2.jpg")
    items = [{"image": name, "captions": [text]} for name, text in zip(names, [ONE, TWO], strict=True)]
    (folder / "all.json.gz").write_bytes(gzip.compress(json.dumps(items).encode()))
    return Shape(folder / "all.json.gz", captioned("1", "2"))


def packed_lines(folder: Path) -> Shape:
    names = write_images(folder / "photos", "1.jpg", "2.jpg")
    lines = [{"file_name": name, "caption": text} for name, text in zip(names, [ONE, TWO], strict=True)]
    data = "\n".join(map(json.dumps, lines)).encode()
    (folder / "all.jsonl.zst").write_bytes(zstandard.compress(data))
    return Shape(folder / "all.jsonl.zst", captioned("1", "2"))


SHAPES: dict[str, Callable[[Path], Shape]] = {
    build.__name__: build
    for build in (
        img2dataset_tars,
        img2dataset_files,
        img2dataset_parquet,
        laion_beside_images,
        hugging_face_parquet,
        imagefolder_with_lines,
        imagefolder_with_csv,
        class_folders,
        kohya,
        coco_captions,
        coco_instances,
        coco_panoptic,
        flickr30k,
        llava,
        cc3m,
        ram,
        open_images,
        visual_genome,
        yolo,
        classes_of_tars,
        packed_json,
        packed_lines,
    )
}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Shape, Ingested]]:
    """What a run has of each shape: one run, for it is that of an input which is looked at."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {}
    for name, build in SHAPES.items():
        (folder / name).mkdir()
        shapes[name] = build(folder / name)
    guessed = {name: shape for name, shape in shapes.items() if not shape.config}
    config = folder / "mine.yaml"
    call("init", *(shape.path for shape in guessed.values()), "--output", config)
    values = yaml.safe_load(config.read_text())
    inputs = [source | {"name": name} for name, source in zip(guessed, values["inputs"], strict=True)]
    inputs += [{"name": name, **shape.config} for name, shape in shapes.items() if shape.config]
    write(folder / "vocabulary.tsv", VOCABULARY)
    values |= {"inputs": inputs, "run": str(folder / "run"), "vocabulary": str(folder / "vocabulary.tsv")}
    config.write_text(yaml.safe_dump(values | {"max_dead_fraction": 1}))
    call("run", config, "--until", "ingest", "--workers", 0)
    made = current_folder(folder / "run", "ingest")
    return {name: (shape, Ingested(made, name)) for name, shape in shapes.items()}


BESIDE = {
    "img2dataset_files": "00000/000000000.txt",
    "imagefolder_with_csv": "metadata.csv",
    "imagefolder_with_lines": "train/metadata.jsonl",
    "kohya": "10_squares/2.caption",
    "ram": "tags.txt",
    "open_images": "classes.csv",
    "visual_genome": "image_data.json",
    "yolo": "labels/train/1.txt",
    "classes_of_tars": "classes.txt",
}
"""A file of each shape that is not the one that its input names."""


@pytest.mark.parametrize("name", SHAPES)
def test_all_that_lies_there_comes_in_or_is_told_of(ingested, name):
    shape, found = ingested[name]
    read = {key: (captions, found.labels[key]) for key, captions in found.captions.items()}
    assert read == shape.examples
    assert {key: reason for key, reason, _ in found.dead} == shape.dead


@pytest.mark.parametrize("name", BESIDE)
def test_a_file_beside_the_source_that_says_something_else_is_a_changed_source(ingested, name):
    path = ingested[name][0].path
    folder = path if path.is_dir() else path.parent
    beside, config = folder / BESIDE[name], folder.parent / "mine.yaml"
    before, times = beside.read_bytes(), beside.stat()
    beside.write_bytes(before[:-2] + b"x\n")  # of the same size
    assert "changed since it was ingested" in call("plan", config, "--until", "ingest", code=4)[1]
    beside.write_bytes(before)
    os.utime(beside, ns=(times.st_atime_ns, times.st_mtime_ns))
