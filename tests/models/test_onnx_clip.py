"""CLIP exported to ONNX: what it gives is what open_clip gives."""

import json
import shutil

import numpy as np
import pytest

import tiny_models
from predicting import predict
from tagmill.models import clip_export
from tagmill.models.base import create
from tagmill.models.onnx_clip import FILES, OnnxClip
from tagmill.models.open_clip import OpenClip
from tagmill.tag_system.core.errors import ConfigError

pytest.importorskip("onnxscript")

SHAPES = [(32, 32), (40, 56), (9, 200), (200, 9), (1, 3000), (3000, 1), (77, 31), (33, 32)]
NAMES = ["dog", "hot dog", "X-ray", " St.  Bernard's&amp;co ", "café", "dog " * 90]


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An open_clip, and what was made of it."""
    folder = tmp_path_factory.mktemp("models")
    clip_export.export(tiny_models.open_clip(folder / "clip"), folder / "onnx")
    return folder / "clip", folder / "onnx"


def loaded(folders, **options):
    both = OpenClip(f"local-dir:{folders[0]}", device="cpu", **options), OnnxClip(str(folders[1]), **options)
    for model in both:
        model.load()
    return both


@pytest.mark.parametrize("fit", ["pad", "crop", "squash", None])
def test_images_are_prepared_to_the_bit_as_by_open_clip(folders, fit):
    torch_one, onnx_one = loaded(folders, fit=fit)
    images = [picture(*shape, seed) for seed, shape in enumerate(SHAPES)]
    for image in images:
        np.testing.assert_array_equal(onnx_one.prepare(image), torch_one.prepare(image).numpy())
    vectors = predict(onnx_one, images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, predict(torch_one, images), atol=1e-5)
    assert onnx_one.size_of(640, 480) == torch_one.size_of(640, 480) == (32, 32)


def test_names_and_features_are_open_clips(folders):
    torch_one, onnx_one = loaded(folders, template="a {}")
    np.testing.assert_allclose(onnx_one.text(NAMES), torch_one.text(NAMES), atol=1e-5)
    assert onnx_one.text(["dog"])[0] is onnx_one.text(["dog"])[0]
    prepared = [onnx_one.prepare(picture(32, 32))]
    features = onnx_one.image_features(prepared)
    assert not np.allclose(np.linalg.norm(features), 1, atol=1e-2)
    np.testing.assert_allclose(features, torch_one.image_features(prepared), atol=1e-5)
    assert predict(onnx_one, []).shape == predict(torch_one, []).shape


def test_a_shape_that_is_not_square_is_prepared_alike(tmp_path):
    clip = tiny_models.open_clip(tmp_path / "clip", image_size=[32, 48])
    clip_export.export(clip, tmp_path / "onnx")
    for fit in ("pad", "crop", "squash"):
        torch_one, onnx_one = loaded((clip, tmp_path / "onnx"), fit=fit)
        for shape in SHAPES:
            image = picture(*shape)
            np.testing.assert_array_equal(onnx_one.prepare(image), torch_one.prepare(image).numpy())
        assert onnx_one.size_of(1, 1) == torch_one.size_of(1, 1) == (48, 32)


def changed(folder, text):
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= text
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def test_clips_own_byte_pairs_need_no_open_clip(tmp_path):
    """The official models have no tokenizer in their folders: it is made of the tables in open_clip."""
    clip = tiny_models.open_clip(tmp_path / "clip", own_tokenizer=True)
    clip_export.export(clip, tmp_path / "onnx")
    torch_one, onnx_one = loaded((clip, tmp_path / "onnx"))
    np.testing.assert_allclose(onnx_one.text(NAMES), torch_one.text(NAMES), atol=1e-5)


def test_a_tokenizer_that_cuts_otherwise_is_refused(tmp_path):
    clip = changed(tiny_models.open_clip(tmp_path / "clip"), {"tokenizer_kwargs": {"clean": "canonicalize"}})
    with pytest.raises(ConfigError, match=r"its tokenizer cuts .* of .* texts otherwise"):
        clip_export.export(clip, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_same_model_gives_the_same_files_and_half_weights_stay_half(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    clip_export.export(folders[0], tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folders[1] / name).read_bytes()
    clip = shutil.copytree(folders[0], tmp_path / "clip")
    weights = {
        name: tensor.half() for name, tensor in load_file(clip / "open_clip_model.safetensors").items()
    }
    save_file(weights, clip / "open_clip_model.safetensors")
    clip_export.export(clip, tmp_path / "half")
    sizes = [(folder / "texts.onnx").stat().st_size for folder in (folders[1], tmp_path / "half")]
    assert sizes[1] < 0.75 * sizes[0]
    torch_one, onnx_one = loaded((clip, tmp_path / "half"))
    np.testing.assert_allclose(onnx_one.text(NAMES), torch_one.text(NAMES), atol=1e-5)


def test_the_fingerprint_follows_files_and_options(folders, tmp_path):
    base = OnnxClip(str(folders[1])).fingerprint()
    copy = shutil.copytree(folders[1], tmp_path / "copy")
    assert OnnxClip(str(copy)).fingerprint() == base
    prints = {
        base,
        *(OnnxClip(str(copy), **one).fingerprint() for one in ({"fit": "crop"}, {"template": "{}"})),
    }
    with (copy / "images.onnx").open("ab") as stream:
        stream.write(b" ")
    assert len(prints | {OnnxClip(str(copy)).fingerprint()}) == 4


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_lacks_a_file_or_has_another_is_refused(folders, tmp_path, name):
    copy = shutil.copytree(folders[1], tmp_path / "copy")
    (copy / name).write_text("{}")
    with pytest.raises(ConfigError, match=name):
        OnnxClip(str(copy)).load()
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=name):
        create("onnx-clip", {"path": str(copy)})


@pytest.mark.parametrize("options", [{"template": "a photo"}, {"fit": "stretch"}, {"device": "cpu"}], ids=str)
def test_options_that_make_no_sense_are_refused(folders, options):
    with pytest.raises(ConfigError):
        create("onnx-clip", {"path": str(folders[1]), **options})
