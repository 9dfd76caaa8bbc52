"""Every format of the way out is written once and read back by what reads it in the field."""

import io
import json
import re
import xml.etree.ElementTree as xml
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image, ImageOps

from runs import samples
from turned import picture

TURNED, BARE, PLAIN = "in/turned", "in/bare", "in/plain"


@pytest.fixture(scope="module")
def truth(exported_run):
    """The samples of the run, by key."""
    return {one["key"]: one for one in samples(exported_run)}


def kept(sample):
    return {tag["tag"] for tag in sample["tags"] if tag["verdict"] == "kept"}


def boxes(sample, least=0.0, verdicts=("kept",)):
    """Boxes of a sample's tags, (tag, x1, y1, x2, y2) rounded."""
    return sorted(
        (tag["tag"], *(round(number, 2) for number in box[:4]))
        for tag in sample["tags"]
        if tag["verdict"] in verdicts
        for entry in tag["evidence"]
        for box in entry.get("boxes", [])
        if box[4] >= least
    )


def captions(sample):
    return [caption["text"] for caption in sample["captions"]]


def corners(box, width=1.0, height=1.0):
    """The corners, in pixels, of a box of left, top, width and height in shares."""
    x, y, wide, high = box
    found = (x * width, y * height, (x + wide) * width, (y + high) * height)
    return tuple(round(float(number), 2) for number in found)


def check_upright(image, sample):
    """Check that an image stands as its sample's boxes do, and that no EXIF turns it any more."""
    assert image.size == (sample["width"], sample["height"])
    assert ImageOps.exif_transpose(image).size == image.size
    assert "exif" not in image.info
    if sample["key"] == TURNED:
        difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - np.asarray(picture()))
        assert difference.mean() < 6


def lost(folder):
    """What LOST.md says, sentence by sentence."""
    rows = re.findall(r"^\| (.*) \| ([\d,]+) \|$", (folder / "LOST.md").read_text(), re.MULTILINE)
    return {sentence: int(count.replace(",", "")) for sentence, count in rows}


def test_coco_is_read_by_pycocotools(export_to, truth, capsys):
    from pycocotools.coco import COCO

    folder = export_to("coco")
    seen, ids = {}, []
    for split in ("train", "val"):
        found = COCO(folder / f"annotations/instances_{split}.json")
        texts = COCO(folder / f"annotations/captions_{split}.json")
        for image in found.loadImgs(found.getImgIds()):
            sample = seen[image["key"]] = truth[image["key"]]
            ids.append((split, image["key"], image["id"]))
            check_upright(Image.open(folder / "images" / split / image["file_name"]), sample)
            annotations = found.loadAnns(found.getAnnIds(image["id"]))
            names = {one["id"]: found.loadCats(one["category_id"])[0] for one in annotations}
            there = [(names[one["id"]]["name"], *corners(one["bbox"])) for one in annotations]
            assert sorted(there) == boxes(sample)
            assert {one["supercategory"] for one in names.values()} <= {"object"}
            assert all(one["score"] == pytest.approx(0.9) for one in annotations)
            on_image = {tag["name"] for tag in image["tags"]}
            assert on_image | {one["name"] for one in names.values()} == kept(sample)
            assert on_image.isdisjoint(one["name"] for one in names.values())
            told = texts.loadAnns(texts.getAnnIds(image["id"]))
            assert [one["caption"] for one in told] == captions(sample)
        # The library matches detections with it as the truth.
        assert found.loadRes(found.loadAnns(found.getAnnIds())).getAnnIds() if found.anns else True
    assert seen == truth
    assert ids == [(*pair, number) for number, pair in enumerate(sorted(one[:2] for one in ids), 1)]
    assert "tidy" in {tag["name"] for tag in _image(folder, PLAIN)["tags"]}


def _image(folder, key):
    images = json.loads((folder / "annotations/instances_train.json").read_text())["images"]
    return next(image for image in images if image["key"] == key)


def test_ram_is_read_as_its_own_reader_does(export_to, truth, tmp_path):
    listed = tmp_path / "tags.txt"
    listed.write_text("yellow\ngreen square\nnothing of ours\nred\n")  # the second is an alias
    plain, mapped = export_to("ram"), export_to("ram", "--classes", listed)
    for folder in (plain, mapped):
        names = (folder / "tag_list.txt").read_text().splitlines()
        known = {name.removesuffix(" square"): name for name in names}
        for split in ("train", "val"):
            keys = sorted(key for key, sample in truth.items() if sample["split"] == split)
            items = json.loads((folder / f"annotations/{split}.json").read_text())
            assert len(items) == len(keys)
            for item in items:
                assert list(item) == ["image_path", "caption", "union_label_id", "parse_label_id"]
                # The reader draws one of the captions, and takes the tags at its place.
                assert len(item["caption"]) == len(item["parse_label_id"]) > 0
                assert all(0 <= one < len(names) for ids in item["parse_label_id"] for one in ids)
                (sample,) = [one for one in truth.values() if captions(one) == item["caption"]] or [
                    truth[BARE]
                ]
                check_upright(Image.open(folder / item["image_path"]), sample)
                wanted = [{m["tag"] for m in caption["mentions"]} for caption in sample["captions"]] or [
                    set()
                ]
                assert [set(one) for one in _names(item["parse_label_id"], names, known)] == [
                    one & known.keys() for one in wanted
                ]
                (union,) = _names([item["union_label_id"]], names, known)
                assert set(union) == kept(sample) & known.keys()
    assert (
        lost(plain)[
            "examples without a caption, which got an empty one: RAM draws one of an image's captions"
        ]
        == 1
    )
    everywhere = [tag for sample in truth.values() for tag in kept(sample)]
    unmapped = sum(tag not in ("yellow", "green", "red") for tag in everywhere)
    assert lost(mapped)["tags that the list of classes does not have"] == unmapped > 0
    assert "tags that the list of classes does not have" not in lost(plain)


def _names(lists, names, known):
    ours = {name: tag for tag, name in known.items()}
    return [[ours[names[number]] for number in numbers] for numbers in lists]


def test_yolo_has_a_text_for_each_image(export_to, truth):
    folder = export_to("yolo")
    said = yaml.safe_load((folder / "data.yaml").read_text())
    assert [said["train"], said["val"]] == ["images/train", "images/val"]
    for split in ("train", "val"):
        images = sorted((folder / said[split]).iterdir())
        assert {one.stem for one in images} == {one.stem for one in (folder / "labels" / split).iterdir()}
        for path in images:
            image = Image.open(path)
            rows = [
                line.split() for line in (folder / f"labels/{split}/{path.stem}.txt").read_text().splitlines()
            ]
            found = []
            for number, *shares in rows:
                x, y, wide, high = map(float, shares)
                box = corners((x - wide / 2, y - high / 2, wide, high), *image.size)
                found.append((said["names"][int(number)], *box))
            (sample,) = [one for one in truth.values() if _stem(one["key"]) == path.stem]
            check_upright(image, sample)
            assert sorted(found) == boxes(sample, 0.3)
    unboxed = sum(len(kept(one)) - len({box[0] for box in boxes(one, 0.3)}) for one in truth.values())
    assert lost(folder)["tags without a box: the format has boxes only"] == unboxed > 0
    strict = export_to("yolo", "--box-score", 0.95)
    assert lost(strict)["boxes that score less than asked for (`--box-score`)"] == sum(
        len(boxes(one)) for one in truth.values()
    )
    assert not any(path.read_text() for path in (strict / "labels").glob("*/*"))


def _stem(key):
    from tagmill.tag_system.shard_contract import escape

    return escape(key)


def test_fiftyone_has_the_documented_fields(export_to, truth):
    folder = export_to("fiftyone")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["media_type"] == "image"
    assert "version" not in metadata  # with one, the library would want its own database documents
    found = json.loads((folder / "samples.json").read_text())["samples"]
    assert {one["key"] for one in found} == truth.keys()
    for one in found:
        sample = truth[one["key"]]
        check_upright(Image.open(folder / one["filepath"]), sample)
        assert one["tags"] == [sample["split"]]
        assert one["captions"] == captions(sample)
        for verdict in ("kept", "uncertain", "dropped"):
            assert one[verdict]["_cls"] == "Classifications"
            labels = one[verdict]["classifications"]
            assert {label["_cls"] for label in labels} <= {"Classification"}
            assert [label["label"] for label in labels] == [
                tag["tag"] for tag in sample["tags"] if tag["verdict"] == verdict
            ]
        assert one["boxes"]["_cls"] == "Detections"
        size = (sample["width"], sample["height"])
        detections = [(d["label"], *corners(d["bounding_box"], *size)) for d in one["boxes"]["detections"]]
        assert sorted(detections) == boxes(sample, verdicts=("kept", "uncertain", "dropped"))
        assert all(0 <= d["confidence"] <= 1 for d in one["boxes"]["detections"])
        assert [label["label"] for label in one["given"]["classifications"]] == [
            label["name"] for label in sample["labels"]
        ]
        given = [corners(d["bounding_box"], *size) for d in one["given_boxes"]["detections"]]
        assert given == [tuple(label["box"]) for label in sample["labels"] if "box" in label]
        assert bool(given) == (one["key"] == PLAIN)


def test_label_studio_finds_each_region_in_its_interface(export_to, truth):
    folder = export_to("label-studio", "--verdicts", "kept,dropped")
    view = xml.parse(folder / "labeling_config.xml").getroot()
    names = {kind: [one.get("value") for one in view.iter(kind)] for kind in ("Label", "Choice")}
    controls = {one.get("name"): one.tag.lower() for one in view}
    seen = set()
    for task in json.loads((folder / "tasks.json").read_text()):
        sample = truth[task["data"]["key"]]
        seen.add(sample["key"])
        (path,) = parse_qs(urlsplit(task["data"]["image"]).query)["d"]
        check_upright(Image.open(folder / path), sample)
        assert task["data"]["captions"] == "\n".join(captions(sample))
        for prediction in task["predictions"]:
            verdict, found = prediction["model_version"], []
            for region in prediction["result"]:
                assert controls[region["from_name"]] == region["type"]
                assert controls[region["to_name"]] == "image"
                value = region["value"]
                if region["type"] == "choices":
                    assert set(value["choices"]) <= set(names["Choice"])
                    assert value["choices"] == [t["tag"] for t in sample["tags"] if t["verdict"] == verdict]
                    continue
                (label,) = value["rectanglelabels"]
                assert label in names["Label"]
                shares = [value[side] / 100 for side in ("x", "y", "width", "height")]
                found.append((label, *corners(shares, sample["width"], sample["height"])))
            assert sorted(found) == boxes(sample, verdicts=(verdict,))
    assert seen == truth.keys()


def test_hugging_face_loads_images(export_to, truth, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    folder = export_to("hf", "--size", 2)
    assert {path.name for path in (folder / "data").iterdir()} == {
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "validation-00000-of-00001.parquet",
    }
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 3, "validation": 1}
    for split in loaded.values():
        for row in split:
            sample = truth[row["key"]]
            check_upright(row["image"], sample)
            assert set(row["tags"]) == kept(sample)
            assert row["captions"] == captions(sample)
            assert json.loads(row["meta"]) == json.loads(sample["meta"])
            found = zip(row["objects"]["tag"], map(corners, row["objects"]["bbox"]), strict=True)
            assert sorted((tag, *box) for tag, box in found) == boxes(sample)
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert front["license"] == "cc-by-4.0"
    assert front["task_categories"][:2] == ["image-classification", "object-detection"]


def test_tables_are_flat_and_croissant_reads_them(export_to, truth, shards):
    import mlcroissant

    folder = export_to("croissant")
    decisions = pq.read_table(folder / "decisions.parquet").to_pylist()
    assert {(d["key"], d["tag"], d["verdict"], d["basis"]) for d in decisions} == {
        (key, tag["tag"], tag["verdict"], tag["basis"]) for key, one in truth.items() for tag in one["tags"]
    }
    for row in decisions:
        (tag,) = [tag for tag in truth[row["key"]]["tags"] if tag["tag"] == row["tag"]]
        evidence = {entry["model"]: entry for entry in tag["evidence"]}
        assert row["asked"] == ("localize" in evidence)
        assert row["tagger"] == pytest.approx(evidence.get("tag", {}).get("score"))
        assert row["own_score"] == pytest.approx(evidence.get("embed", {}).get("own_score"))
        assert row["parsed"] == tag["sources"].get("parsed", 0)
    for row in pq.read_table(folder / "examples.parquet").to_pylist():
        with (shards / f"{row['shard']}.tar").open("rb") as tar:
            tar.seek(row["image_offset"])
            stored = Image.open(io.BytesIO(tar.read(row["image_size"])))
        sample = truth[row["key"]]
        assert ImageOps.exif_transpose(stored).size == (sample["width"], sample["height"])
        assert set(row["tags"]) == kept(sample)
    described = mlcroissant.Dataset(folder / "croissant.json")
    records = list(described.records("decisions"))
    assert [(r["decisions/key"].decode(), r["decisions/tag"].decode()) for r in records] == [
        (d["key"], d["tag"]) for d in decisions
    ]
    (plain,) = [r for r in described.records("examples") if r["examples/key"].decode() == PLAIN]
    assert {tag.decode() for tag in plain["examples/tags"]} == kept(truth[PLAIN])
    tars = [one for one in described.metadata.distribution if one.name.endswith(".tar")]
    assert {(folder / one.content_url).resolve() for one in tars} == {
        path.resolve() for path in shards.glob("*.tar")
    }


def test_shards_of_another_size_hold_the_same(export_to, truth, shards):
    from tagmill import open_dataset

    same, small = export_to("webdataset"), export_to("webdataset", "--size", 1, "--verdicts", "kept")
    for path in shards.glob("*.tar"):
        assert (same / path.name).read_bytes() == path.read_bytes()
    for folder in (same, small):
        found = {one.key: one for split in ("train", "val") for one in open_dataset(folder, split)}
        assert {key: set(one.tags) for key, one in found.items()} == {
            k: kept(one) for k, one in truth.items()
        }
        assert found[TURNED].image.size == (96, 80)
    assert len(list(small.glob("train-*.tar"))) == 3
    verdicts = {
        folder: {tag.verdict for one in open_dataset(folder, "val") for tag in one.record.tags}
        for folder in (same, small)
    }
    assert verdicts == {same: {"kept", "uncertain"}, small: {"kept"}}
    assert lost(same) == {}
    before, after = (json.loads((folder / "manifest.json").read_text()) for folder in (shards, same))
    made_by = before["made_by"] | {"export": after["made_by"]["export"]}
    assert after == before | {"made_by": made_by, "date": after["date"]}
    card = (same / "README.md").read_text()
    assert card.replace(f" Dated {after['date']}.", "") == (shards / "README.md").read_text()
