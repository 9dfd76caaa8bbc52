"""A tagger of one's own in all commands that evaluate and use taggers."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tagmill
from commands import call
from runs import current_folder
from sources import COLOURS, square_image
from square_models import SquareTagger
from tagmill.tag_system.core.errors import ConfigError

OPTIONS = "--option", "names={red: crimson thing}", "--option", "threshold=0.3"
RENAMED = "odd_models:RenamedTagger"


@pytest.fixture(scope="module")
def shards(finished):
    return current_folder(finished / "run", "shards")


@pytest.fixture
def picture(tmp_path):
    square_image(["red", "blue"], 3).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def rows_of(path):
    return {row["tag"]: row for row in pq.read_table(path).to_pylist()}


def test_a_plug_in_is_measured_calibrated_and_used(shards, picture, tmp_path):
    data = "--shards", shards, "--split", "train"
    call("models", "eval", RENAMED, *OPTIONS, *data, "--workers", 2, "--out", tmp_path / "eval")
    found = rows_of(tmp_path / "eval" / "tags.parquet")
    assert set(found) == {*COLOURS, "crimson thing"} - {"red"}
    assert {row["threshold"] for row in found.values()} == {0.3}
    assert found["crimson thing"]["images"] == 0
    for name in ("blue", "yellow"):
        place, expected = SquareTagger.classes.index(name), []
        for sample in tagmill.open_dataset(str(shards), "train"):
            score = SquareTagger().predict([np.array(sample.image)])[0][place]
            verdicts = [tag.verdict for tag in sample.record.tags if tag.tag == name]
            if verdicts != ["uncertain"]:
                expected.append((score >= 0.3, verdicts == ["kept"]))
        assert found[name]["images"] == len(expected)
        assert found[name]["predicted"] == sum(seen for seen, _ in expected)
        assert found[name]["right"] == sum(seen and true for seen, true in expected)

    fit = "--min-positives", 2, "--hold-out", 0.4
    call("models", "calibrate", RENAMED, *OPTIONS, *data, *fit, "--out", tmp_path / "fit")
    chosen = [float(line) for line in (tmp_path / "fit" / "thresholds.txt").read_text().splitlines()]
    rows = rows_of(tmp_path / "fit" / "calibration.parquet")
    assert [row["threshold"] for row in rows.values()] == chosen
    assert list(rows) == list(found)
    assert (rows["crimson thing"]["fallback"], rows["crimson thing"]["threshold"]) == ("few_positives", 0.3)

    (tmp_path / "tags.txt").write_text("Crimson-Thing\nblue\n")
    listed = "--taglist", tmp_path / "tags.txt"
    out, _ = call("predict", picture, "--model", RENAMED, *OPTIONS, *listed, "--json")
    assert {tag["tag"] for tag in json.loads(out)["tags"]} == {"Crimson-Thing", "blue"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("few classes", r"the model gave scores of shape \(2,\), expected \(\d+,\)"),
        ("logits", r"the model gave scores from -10.0 to 10.0, expected 0 to 1"),
        ("few images", r"the model gave scores of \d+ images for \d+"),
        ("nothing", "'NoneType' object is not iterable"),
    ],
)
def test_a_plug_in_that_breaks_its_contract_is_said_to(shards, picture, tmp_path, how, message):
    model = "odd_models:FaithlessTagger", "--option", f"how={how}"
    data = "--shards", shards, "--split", "train", "--out", tmp_path / "out"
    for command in (
        ("predict", picture, "--model", *model),
        ("models", "eval", *model, *data),
        ("models", "calibrate", *model, *data),
    ):
        with pytest.raises(ConfigError, match=f"FaithlessTagger does not answer as a tagger: {message}"):
            raise_of(*command)


def raise_of(*command):
    """Raise what a command ends with in a line."""
    _, err = call(*command, code=2)
    (line,) = err.splitlines()
    raise ConfigError(line)


def test_images_that_a_plug_in_fails_on_are_left_out_and_many_of_them_are_a_bug(shards, tmp_path):
    keys = [sample.key for sample in tagmill.open_dataset(str(shards), "train")]
    model = "odd_models:OverflowingTagger", "--option", "width=96"
    data = "--shards", shards, "--split", "train", "--out", tmp_path / "out"
    with pytest.raises(ConfigError, match="model odd_models:OverflowingTagger: OverflowingTagger gave NaN"):
        raise_of("models", "eval", *model, *data)
    pq.write_table(pa.table({"key": keys[:2], "tags": [["red"]] * 2}), tmp_path / "truth.parquet")
    with pytest.raises(ConfigError, match=r"could be scored; 2 left out: model_failed: .* gave NaN"):
        raise_of("models", "eval", *model, *data, "--truth", tmp_path / "truth.parquet")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (("square_models:SquareTagger", "--dtype", "float16"), "'dtype': 'float16'}: SquareTagger"),
        (("square_models:SquareLocalizer",), "SquareLocalizer is not a tagger: it has no list of classes"),
        (("odd_models:HalfCalibratedTagger",), "is not a tagger: it has 1 thresholds for"),
        (("odd_models:OldTagger",), "lacks the methods prepare, size_of"),
        (("odd_models:Nobody",), "module odd_models has no Nobody"),
        ((RENAMED, "--option", "names"), "--option names: write it as key=value"),
        (("square_models:SquareTagger", "--apply"), "--apply writes into the folder of a RAM"),
        (("nowhere/ram",), "there is no model folder nowhere/ram"),
        (("ramm",), "unknown model 'ramm': did you mean ram?"),
        (("{folder}/ram.pth",), "ram.pth is a file, not a model: `tagmill models convert`"),
        (("{folder}/net.onnx",), "net.onnx is not an ONNX file that runs here"),
    ],
)
def test_what_is_not_a_tagger_is_refused(shards, tmp_path, model, message):
    for name in ("ram.pth", "net.onnx"):
        (tmp_path / name).write_bytes(b"")
    arguments = [str(one).format(folder=tmp_path) for one in model]
    with pytest.raises(ConfigError, match=message):
        raise_of("models", "calibrate", *arguments, "--shards", shards, "--out", tmp_path / "out")
