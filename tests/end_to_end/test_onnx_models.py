"""The example plug-ins of docs/examples, on real photographs and with real weights."""

import io
import json
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image as pillow

from predicting import predict
from tagmill.models.base import create
from tagmill.pipeline.config import load_config
from tagmill.pipeline.stages import build_stages
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.class_names import ClassNames

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
YOLOX = str(DATA / "weights" / "yolox_nano.onnx")
MOBILENET = {
    "weights": str(DATA / "weights" / "mobilenet_v2_1.0_224.onnx"),
    "labels": str(DATA / "vocab" / "imagenet1k.tsv"),
}
LARGE = 96 * 96
"""Pixels from which COCO calls an object large."""

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the test data is not there")


@pytest.fixture(autouse=True)
def _examples_on_path(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))


def loaded(name, **options):
    model = create(f"onnx_models:{name}", options)
    model.load()
    return model


def photos(shard, step=1):
    """Give (pixels, json) of every `step`th sample of a tar."""
    with tarfile.open(DATA / "photos" / shard) as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".json"))[::step]
        for name in names:
            record = json.load(archive.extractfile(name))
            data = archive.extractfile(name.removesuffix("json") + "jpg").read()
            yield np.asarray(pillow.open(io.BytesIO(data)).convert("RGB")), record


def overlaps(box, boxes):
    """Intersection over union of a box with each of `boxes`, written differently from the model's own."""
    shares = []
    for other in boxes:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        common = max(width, 0) * max(height, 0)
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
        shares.append(common / (sum(areas) - common))
    return shares


def test_the_localizer_finds_large_objects_of_the_categories_asked_for():
    model = loaded("YoloxLocalizer", weights=YOLOX)
    found = wanted = 0
    for image, record in islice(photos("coco-000000.tar"), 20):
        prompt = sorted(record["categories"], reverse=True)
        (boxes,) = predict(model, [image], [prompt])
        assert boxes.boxes.dtype == np.float32
        assert boxes.boxes.shape == (len(boxes.tags), 4)
        assert ((boxes.scores >= 0.1) & (boxes.scores <= 1)).all()
        assert (boxes.boxes >= 0).all()
        assert (boxes.boxes[:, 2:] <= [image.shape[1], image.shape[0]]).all()
        for thing in record["objects"]:
            x1, y1, x2, y2 = thing["box"]
            if (x2 - x1) * (y2 - y1) >= LARGE and not thing.get("iscrowd"):
                wanted += 1
                mine = boxes.boxes[boxes.tags == prompt.index(thing["category"])]
                found += max(overlaps(thing["box"], mine.tolist()), default=0) > 0.5
    assert wanted >= 30
    assert found / wanted > 0.6


def test_an_empty_prompt_finds_nothing_and_images_do_not_mix():
    model = loaded("YoloxLocalizer", weights=YOLOX)
    pairs = list(islice(photos("coco-000000.tar"), 3))
    images = [image for image, _ in pairs]
    prompts = [pairs[0][1]["categories"], [], pairs[2][1]["categories"]]
    together = predict(model, images, prompts)
    assert len(together[1].tags) == len(together[1].scores) == len(together[1].boxes) == 0
    for image, prompt, boxes in zip(images, prompts, together, strict=True):
        (alone,) = predict(model, [image], [prompt])
        np.testing.assert_array_equal(alone.tags, boxes.tags)
        np.testing.assert_array_equal(alone.boxes, boxes.boxes)
        np.testing.assert_array_equal(alone.scores, boxes.scores)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 3), (700, 2, 3)])
def test_images_of_any_size_are_taken(shape):
    image = np.full(shape, 200, dtype=np.uint8)
    (boxes,) = predict(loaded("YoloxLocalizer", weights=YOLOX), [image], [["person"]])
    assert boxes.boxes.shape == (len(boxes.tags), 4)
    (scores,) = predict(loaded("MobileNetTagger", **MOBILENET), [image])
    assert np.isfinite(scores).all()
    assert np.linalg.norm(predict(loaded("MobileNetEmbedder", **MOBILENET), [image])) == pytest.approx(1)


def test_the_localizers_classes_are_cocos_in_order_and_all_are_tags():
    model = loaded("YoloxLocalizer", weights=YOLOX)
    assert list(model.classes) == (DATA / "vocab" / "coco80.txt").read_text().split("\n")[:80]
    assert ClassNames(model.classes, Vocabulary.load()).unmapped == []


def test_the_taggers_best_five_hold_the_truth():
    model = loaded("MobileNetTagger", **MOBILENET)
    pairs = list(photos("imagenet-sample-000000.tar", step=25))
    hits = 0
    for scores, (_, record) in zip(predict(model, [image for image, _ in pairs]), pairs, strict=True):
        assert scores.dtype == np.float32
        assert len(scores) == len(model.classes)
        # A class's names share its score: five classes are the names over the fifth highest score.
        fifth = np.unique(scores)[-5]
        best = {name for name, score in zip(model.classes, scores, strict=True) if score >= fifth}
        hits += record["lemmas"][0] in best
    assert len(pairs) == 40
    assert hits / len(pairs) > 0.8


def test_the_tagger_lists_every_name_but_the_skipped_ones():
    model = loaded("MobileNetTagger", **MOBILENET)
    without = loaded("MobileNetTagger", **MOBILENET, skip=["kite", "panda"])
    assert set(model.classes) - set(without.classes) == {"kite", "panda"}
    assert len(set(ClassNames(model.classes, Vocabulary.load()).tag_of.values())) > 330


def test_an_images_nearest_class_vector_is_mostly_its_own():
    model = loaded("MobileNetEmbedder", **MOBILENET)
    pairs = list(photos("imagenet-sample-000000.tar", step=25))
    vectors = predict(model, [image for image, _ in pairs])
    texts = np.stack(model.text([record["lemmas"][0] for _, record in pairs]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    nearest = (vectors @ texts.T).argmax(axis=1)
    assert (nearest == np.arange(len(pairs))).mean() > 0.8  # chance is 1 in 40


def test_a_regions_own_tag_is_mostly_nearer_than_the_images_others():
    model = loaded("MobileNetEmbedder", **MOBILENET, skip=["kite"])
    nearer = []
    for image, record in photos("coco-000001.tar"):
        names = [name for name in record["categories"] if model.text([name])[0] is not None]
        for thing in record["objects"] if len(names) > 1 else []:
            x1, y1, x2, y2 = (int(edge) for edge in thing["box"])
            if thing["category"] in names and (x2 - x1) * (y2 - y1) >= LARGE:
                (vector,) = predict(model, [image[y1:y2, x1:x2]])
                scores = np.stack(model.text(names)) @ vector
                nearer.append(names[int(scores.argmax())] == thing["category"])
    assert len(nearer) >= 10
    assert np.mean(nearer) > 0.6  # chance is at most 1 in 2


def test_names_are_embedded_however_written_and_unknown_ones_are_not():
    model = loaded("MobileNetEmbedder", **MOBILENET, skip=["kite"])
    hot_dog, same, kite, unknown = model.text(["hot dog", "Hot_Dog", "kite", "standing around"])
    np.testing.assert_array_equal(hot_dog, same)
    assert hot_dog.shape == (1280,)
    assert kite is None
    assert unknown is None


def test_the_same_images_give_the_same_results():
    images = [image for image, _ in islice(photos("coco-000000.tar"), 2)]
    for name in ("MobileNetTagger", "MobileNetEmbedder"):
        first, second = loaded(name, **MOBILENET), loaded(name, **MOBILENET)
        np.testing.assert_array_equal(predict(first, images), predict(second, images))


@pytest.mark.parametrize(
    ("name", "options", "change"),
    [
        ("YoloxLocalizer", {"weights": YOLOX}, {"score_floor": 0.2}),
        ("YoloxLocalizer", {"weights": YOLOX}, {"nms_iou": 0.6}),
        ("MobileNetTagger", MOBILENET, {"skip": ["kite"]}),
        ("MobileNetEmbedder", MOBILENET, {"skip": ["kite"]}),
    ],
)
def test_fingerprints_follow_options_and_content_but_not_paths(tmp_path, name, options, change):
    before = create(f"onnx_models:{name}", options).fingerprint()
    assert create(f"onnx_models:{name}", options | change).fingerprint() != before
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(Path(options["weights"]).read_bytes())
    moved = create(f"onnx_models:{name}", options | {"weights": str(copy)})
    assert moved.fingerprint() == before
    copy.write_bytes(b"other bytes")
    assert moved.fingerprint() != before


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("YoloxLocalizer", {"weights": "/nowhere/yolox.onnx"}, "/nowhere/yolox.onnx"),
        ("YoloxLocalizer", {"weights": YOLOX, "score_floor": 2}, "score_floor"),
        ("MobileNetTagger", MOBILENET | {"labels": "/nowhere/labels.tsv"}, "/nowhere/labels.tsv"),
        ("MobileNetEmbedder", MOBILENET | {"weights": "/nowhere/net.onnx"}, "/nowhere/net.onnx"),
        ("MobileNetEmbedder", MOBILENET | {"typo": 1}, "typo"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create(f"onnx_models:{name}", options)


def test_other_weights_are_refused_by_name():
    options = MOBILENET | {"weights": YOLOX}
    with pytest.raises(ConfigError, match="yolox_nano"):
        loaded("MobileNetEmbedder", **options)


def test_the_example_config_builds_all_its_stages(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config("docs/examples/photos.yaml")
    stages = build_stages(config, Vocabulary.load(config.vocabulary))
    names = [stage.name for stage in stages]
    assert names == [
        "ingest",
        "duplicates",
        "parse",
        "tag",
        "candidates",
        "localize",
        "embed",
        "cluster",
        "clean",
        "shards",
    ]
    assert all(stage.spec["model"] for stage in stages if stage.uses_model)


def test_the_skipped_names_of_the_example_are_names_of_the_network():
    options = yaml.safe_load((ROOT / "docs" / "examples" / "photos.yaml").read_text())["tag"]["options"]
    classes = loaded("MobileNetTagger", **MOBILENET).classes
    vocabulary = Vocabulary.load()
    assert [name for name in options["skip"] if name not in classes or name not in vocabulary] == []
