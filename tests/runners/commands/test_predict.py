import json
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from commands import call
from square_models import SquareTagger
from tagmill.models.ram import store
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.pipeline.study.asking import TagList
from tagmill.pipeline.study.prediction import ImageBatch
from tagmill.runners.commands.predict import predict
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.files import sha256
from tagmill.tag_system.vocabulary import Vocabulary
from turned import turned

CLASSES = ("dog", "cat", "red", "unheard-of")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    config = RamConfig(
        image_size=64,
        encoder=EncoderConfig(name="resnet18", arguments={"channels": (8, 8, 8, 8)}, stages=(4,), width=8),
        dimension=8,
        head=HeadConfig(hidden=8, heads=2, inner=8),
        classes=CLASSES,
        thresholds=(0.0, 1.0, 0.0, 0.0),
    )
    tagger = RamPlus(config)
    tagger.set_labels(torch.randn(4, 8))
    folder = tmp_path_factory.mktemp("models")
    store.save(tagger, folder / "tagger")
    tiny_models.grounding_dino(folder / "localizer")
    tiny_models.tag2text(folder / "captioner")
    return folder


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "tags.tsv"
    path.write_text("dog\tobject\t\t\t\t\t\t\t狗\nred\tattribute\n", encoding="utf-8")
    return str(path)


def test_tags_have_scores_names_and_boxes(model, photo, vocabulary, tmp_path):
    arguments = ["--model", model / "tagger", "--vocabulary", vocabulary, "--output", tmp_path / "drawn"]
    boxes = ["--boxes", "--localizer", model / "localizer", "--box-threshold", 0]
    out, _ = call("predict", photo, *arguments, *boxes, "--json")
    (found,) = map(json.loads, out.splitlines())
    assert (found["width"], found["height"]) == (90, 60)
    tags = {tag["tag"]: tag for tag in found["tags"]}
    assert set(tags) == {"dog", "red", "unheard-of"}  # never the one whose threshold is 1
    assert [tag["score"] for tag in found["tags"]] == sorted(
        (t["score"] for t in tags.values()), reverse=True
    )
    assert tags["dog"]["chinese"] == "狗"
    assert tags["red"]["boxes"] is None
    assert all(tag["sources"] == ["tagger"] for tag in tags.values())
    assert "caption" not in found
    for name in ("dog", "unheard-of"):
        scores = [box["score"] for box in tags[name]["boxes"]]
        assert scores
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= box["x1"] < box["x2"] <= 90 for box in tags[name]["boxes"])
    with PIL.Image.open(tmp_path / "drawn" / "photo.tags.png") as picture:
        assert picture.width > 800


def test_a_photo_taken_on_its_side_is_predicted_upright(model, photo, tmp_path):
    with PIL.Image.open(photo) as image:
        (tmp_path / "side.png").write_bytes(turned(image, 6))
    boxes = ["--boxes", "--localizer", model / "localizer", "--box-threshold", 0, "--json"]
    out, _ = call("predict", photo, tmp_path / "side.png", "--model", model / "tagger", *boxes)
    upright, side = map(json.loads, out.splitlines())
    assert upright.pop("image") != side.pop("image")
    assert side == upright
    assert (side["width"], side["height"]) == (90, 60)


def test_without_boxes_and_with_one_threshold(model, photo, vocabulary, capsys):
    predict([photo], model / "tagger", vocabulary=vocabulary, device="cpu")
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(photo)
    assert sorted(line.split()[0] for line in lines) == ["dog", "red", "unheard-of"]
    assert [line.split()[2:] for line in lines if "dog" in line] == [["tagger", "狗"]]
    predict([photo], model / "tagger", threshold=1.0, device="cpu")
    assert capsys.readouterr().out.splitlines()[1:] == ["  no tag over its threshold"]


def test_tags_of_a_written_caption_say_so(model, photo, tmp_path, capsys):
    (tmp_path / "tags.tsv").write_text("dog\ncar\nglass\nred\tattribute\n")
    options = {"vocabulary": str(tmp_path / "tags.tsv"), "captioner": model / "captioner", "device": "cpu"}
    predict([photo], model / "captioner", threshold=0.0, as_json=True, **options)
    found = json.loads(capsys.readouterr().out)
    (said,) = set(found["caption"].split())
    sources = {tag["tag"]: tag["sources"] for tag in found["tags"]}
    assert sources[said] == ["tagger", "generated"]
    assert sources["red"] == ["tagger"]
    predict([photo], model / "captioner", threshold=1.0, **options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"  caption: {found['caption']}"
    assert [line.split() for line in lines[2:]] == [[said, "-", "generated"]]


@pytest.fixture
def listed(tmp_path):
    """Predict with a list of tags, of a vocabulary in which hound and dog are one; gives out and err."""
    (tmp_path / "tags.tsv").write_text("dog\tobject\thound|domestic dog\nred\tattribute\ncar\nglass\n")

    def run(model, photo, names, *more, code=0):
        (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
        arguments = ["--vocabulary", tmp_path / "tags.tsv", "--taglist", tmp_path / "list.txt", "--json"]
        out, err = call("predict", photo, "--model", model, *arguments, *more, code=code)
        return [json.loads(line) for line in out.splitlines()], err.replace(f"{tmp_path}/", "")

    return run


def test_only_the_tags_of_a_list_are_given_by_its_names(model, photo, listed):
    (every,), _ = listed(model / "tagger", photo, ["dog", "cat", "red", "unheard-of"], "--threshold", 0)
    scores = {tag["tag"]: tag["score"] for tag in every["tags"]}
    assert set(scores) == set(CLASSES)
    names = ["Unheard of", "Hound", "domestic_dog", "Hound", "car"]
    (some,), err = listed(model / "tagger", photo, names, "--threshold", 0)
    assert {tag["tag"]: tag["score"] for tag in some["tags"]} == {
        "Unheard of": pytest.approx(scores["unheard-of"], abs=1e-6),
        "Hound": pytest.approx(scores["dog"], abs=1e-6),
    }
    assert err == (
        "tagmill: list.txt: the model has no class for 1 of the 3 tags and never gives them ('car'); "
        "`tagmill models relabel` changes the classes of a RAM\n"
        "tagmill: list.txt: 1 names are another one's synonyms and given by that, "
        "as 'domestic_dog' by 'Hound'\n"
    )
    (spelt,), err = listed(model / "tagger", photo, ["hound", "DOG"], "--threshold", 0)
    assert [tag["tag"] for tag in spelt["tags"]] == ["DOG"]
    assert "as 'hound' by 'DOG'" in err
    (own,), _ = listed(model / "tagger", photo, ["cat", "hound"])
    assert [tag["tag"] for tag in own["tags"]] == ["hound"]  # the cat's own threshold is 1


def test_a_class_is_asked_by_the_name_that_spells_it():
    vocabulary = Vocabulary.from_text("couch\tobject\tsofa|settee\n", "tags.tsv")
    for names, expected in (
        (["sofa", "couch"], {"sofa": [0], "couch": [1]}),
        (["settee"], {"settee": [0, 1]}),
        (["settee", "Couch"], {"settee": [0], "Couch": [1]}),
    ):
        assert TagList.of(names, ["sofa", "couch"], vocabulary, "").classes == expected


def test_tags_of_a_caption_are_those_of_the_list(model, photo, listed):
    captioner = model / "captioner", photo
    (free,), _ = listed(*captioner, ["dog", "red", "car", "glass"], "--captioner", captioner[0])
    (said,) = set(free["caption"].split())
    named = {"dog": "Hound"}.get(said, said)
    quiet = "--captioner", captioner[0], "--threshold", 1
    (found,), _ = listed(*captioner, [named, "red"], *quiet)
    assert [(tag["tag"], tag["sources"]) for tag in found["tags"]] == [(named, ["generated"])]
    (found,), _ = listed(*captioner, ["red"], *quiet)
    assert found["tags"] == []


def test_a_list_of_numbers_is_of_classes(model, photo, listed):
    (found,), _ = listed(model / "captioner", photo, ["3", "0"], "--threshold", 0)
    assert {tag["tag"] for tag in found["tags"]} == {"dog", "glass"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["dog", "dgo", "ca t"],
            "2 of the 3 names are neither tags of the vocabulary nor classes of the model",
        ),
        (["car", "glass"], r"list\.txt: the model has no class for any of the 2 tags \('car', 'glass'\)"),
        (["dog", "", "red"], r"list\.txt:2 is empty: it should be a list of tags, one a line"),
        (["dog", "# red"], r"neither .* \('# red'\): correct or remove them"),
    ],
)
def test_a_list_that_cannot_be_answered_is_refused(model, photo, listed, names, message):
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(listed(model / "tagger", photo, names, code=2)[1])


def test_an_image_that_cannot_be_read_does_not_stop_the_others(model, photo, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    files = [tmp_path / "none.jpg", broken, photo]
    with pytest.raises(ConfigError, match="2 of 3 images could not be read"):
        predict(files, model / "tagger", device="cpu")
    said = capsys.readouterr()
    assert str(photo) in said.out
    assert "none.jpg: No such file" in said.err
    assert "broken.jpg: image_unreadable" in said.err


class Measurer(SquareTagger):
    """Gives an image's shape; fails on a low one, when it is prepared or when it is measured."""

    def __init__(self, where):
        self.where = where

    def prepare(self, image):
        return self.checked(image, "prepare")

    def predict(self, batch):
        return [self.checked(image, "predict").shape for image in batch]

    def checked(self, image, where):
        if where == self.where and len(image) < 20:
            raise ValueError("too thin for me")
        return image


@pytest.mark.parametrize("where", ["prepare", "predict"])
def test_an_image_that_a_model_fails_on_leaves_and_the_others_stay(photo, tmp_path, where):
    PIL.Image.new("RGB", (9000, 12)).save(tmp_path / "thin.png")
    batch, model = ImageBatch([tmp_path / "thin.png", photo]), Measurer(where)
    found = batch.ask(model.predict, batch.prepared(model))
    assert [(one.path, shape) for one, shape in found] == [(photo, (60, 90, 3))]
    assert [one.path for one in batch.images] == [photo]
    assert batch.errors == {tmp_path / "thin.png": "model_failed: ValueError: too thin for me"}


def test_a_model_that_can_prepare_nothing_is_a_bug(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for file in files:
        PIL.Image.new("RGB", (9, 9)).save(file)
    with pytest.raises(ValueError, match="too thin for me"):
        ImageBatch(files).prepared(Measurer("prepare"))


def test_a_model_that_gives_no_numbers_is_said_to(model, photo, tmp_path):
    weights = load_file(model / "tagger" / "model.safetensors")
    weights["score_projection.bias"] *= float("nan")
    shutil.copytree(model / "tagger", tmp_path / "broken")
    save_file(weights, tmp_path / "broken" / "model.safetensors")
    with pytest.raises(ConfigError, match="RAM gave NaN"):
        predict([photo] * 5, tmp_path / "broken", device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boxes": True}, "by --localizer"),
        ({"threshold": 1.5}, "--threshold must be from 0 to 1"),
        ({"threshold": float("nan")}, "--threshold must be from 0 to 1"),
        ({"device": "nope"}, "there is no device 'nope'"),
        ({"output": "drawn", "copy": "other"}, "two images have the same name"),
        ({"output": "photo.png"}, r"cannot write .*photo\.png"),
    ],
    ids=["no-localizer", "over-1", "nan", "no-device", "same-name", "no-folder"],
)
def test_bad_usage_is_said(model, photo, tmp_path, options, message):
    files, other = [photo], options.pop("copy", None)
    if other:
        (tmp_path / other).mkdir()
        files.append((tmp_path / other / photo.name).absolute())
    if "output" in options:
        options["output"] = tmp_path / options["output"]
    before = sha256(str(photo))
    with pytest.raises(ConfigError, match=message):
        predict(files, model / "tagger", **{"device": "cpu", **options})
    assert sha256(str(photo)) == before
