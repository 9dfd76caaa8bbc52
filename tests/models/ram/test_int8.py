"""`tagmill models export --int8`, on the demo's tagger."""

import re

import numpy as np
import pytest
from huggingface_hub import ModelCard

from commands import tagmill
from tagmill.models.base import create_tagger
from tagmill.models.ram.int8 import BATCH
from tagmill.runners.commands.demo import embedded
from tagmill.runners.commands.export import sample_images

pytest.importorskip("onnxscript")
TAGGER = embedded() / "tagger"
pytestmark = pytest.mark.skipif(not TAGGER.is_dir(), reason="the demo's models are not here")


def test_what_int8_changes_is_said_and_true(tmp_path):
    out, err = tagmill("models", "export", TAGGER, tmp_path / "int8.onnx", "--int8")
    assert not err
    card = ModelCard.load(tmp_path / "int8.onnx.md")
    assert card.data.tags[-2:] == ["onnx", "int8"]
    (agrees,) = re.findall(r"Against float32, (on .*)\. What", card.text)
    assert agrees in " ".join(out.split())
    said = out.replace("\n", " ").replace(",", "")
    found = re.search(r"on (\d+) images: ([\d.]+)% of (\d+) decisions .* at most ([\d.]+)", said)
    count, equal, decisions, change = map(float, found.groups())
    before, after = map(int, re.search(r"(\d+) bytes become (\d+)", said).groups())
    assert after == (tmp_path / "int8.onnx").stat().st_size < before
    taggers = [create_tagger(path, {}) for path in (embedded() / "tagger.onnx", tmp_path / "int8.onnx")]
    assert taggers[0].fingerprint() != taggers[1].fingerprint()
    images, scores = sample_images(None), []
    for tagger in taggers:
        tagger.load()
        prepared = [tagger.prepare(image) for image in images]
        parts = [tagger.predict(prepared[at : at + BATCH]) for at in range(0, len(prepared), BATCH)]
        scores.append(np.concatenate(parts))
    limits = np.asarray(taggers[0].thresholds or [0.5] * len(taggers[0].classes), np.float32)
    share = ((scores[0] > limits) == (scores[1] > limits)).mean()
    assert (count, decisions) == (len(images), scores[0].size)
    assert 100 * share == pytest.approx(equal, abs=0.1)
    assert 0 < np.abs(scores[0] - scores[1]).max() == pytest.approx(change, rel=0.2)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.pt2", ["--int8"], "--int8 makes ONNX files"),
        ("a.onnx", ["--images", "."], "give both or none"),
        ("a.onnx", ["--int8", "--images", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_what_int8_does_not_take_is_one_line(tmp_path, name, options, said):
    _, err = tagmill("models", "export", TAGGER, tmp_path / name, *options, code=2)
    assert said in err
    assert not list(tmp_path.iterdir())
