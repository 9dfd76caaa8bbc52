import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

from predicting import predict
from tagmill.models.base import create
from tagmill.models.ram import store
from tagmill.models.ram.config import RamConfig
from tagmill.models.ram.preprocess import prepare
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.models.ram.tagger import RamTagger
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_config):
    torch.manual_seed(0)
    model = RamPlus(tiny_config())
    model.set_labels(torch.randn(18, 16))
    folder = tmp_path_factory.mktemp("models") / "ram"
    store.save(model, folder)
    return folder


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


IMAGES = [picture(40, 56), picture(9, 200, 1), picture(64, 64, 2)]


def loaded(folder, **options):
    tagger = create("ram", {"path": str(folder), "device": "cpu", **options})
    tagger.load()
    return tagger


def test_images_get_scores_whatever_their_batch(folder):
    tagger = loaded(folder)
    scores = predict(tagger, IMAGES)
    assert [score.shape for score in scores] == [(6,)] * 3
    assert {score.dtype for score in scores} == {np.dtype(np.float32)}
    assert all((score > 0).all() and (score < 1).all() for score in scores)
    for image, score in zip(IMAGES, scores, strict=True):
        np.testing.assert_allclose(predict(tagger, [image])[0], score, rtol=0, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    assert predict(tagger, []) == []


def test_what_is_known_before_the_weights_are_read(folder):
    tagger = RamTagger(str(folder))
    assert list(tagger.classes) == ["red", "green", "blue", "bright", "dark", "wide"]
    assert tagger.thresholds is None
    assert tagger.fingerprint() == RamTagger(str(folder), device="cpu").fingerprint()
    assert tagger.fingerprint() != RamTagger(str(folder), dtype="bfloat16").fingerprint()


def test_half_precision_scores_are_close_and_float32(folder):
    whole, half = predict(loaded(folder), IMAGES), predict(loaded(folder, dtype="bfloat16"), IMAGES)
    assert half[0].dtype == np.float32
    np.testing.assert_allclose(np.stack(half), np.stack(whole), atol=5e-2)


def test_the_folder_and_the_options_are_checked_at_once(folder, tmp_path):
    with pytest.raises(ConfigError, match="there is no model folder"):
        create("ram", {"path": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match=r"has no config\.json, no model\.safetensors"):
        create("ram", {"path": str(tmp_path)})
    with pytest.raises(ConfigError, match="dtype must be one of"):
        create("ram", {"path": str(folder), "dtype": "int8"})


def test_images_are_prepared_as_the_published_models_expect(golden):
    data = golden.tensors("preprocess")
    config = RamConfig(image_size=64, encoder={"name": "none", "width": 1}, classes=["one"])
    names = [name.removeprefix("in.") for name in data if name.startswith("in.")]
    assert names
    for name in names:
        pixels = data[f"in.{name}"].numpy().squeeze()
        image = np.asarray(PIL.Image.fromarray(pixels).convert("RGB"))
        np.testing.assert_allclose(prepare(image, config), data[f"out.{name}"].numpy(), atol=1e-5)


def test_constructing_imports_no_torch(folder):
    code = (
        "import sys; from tagmill.models.base import create; "
        f"create('ram', {{'path': {str(folder)!r}}}).fingerprint(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
