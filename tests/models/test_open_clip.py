import json
import shutil

import numpy as np
import pytest

import tiny_models
from predicting import predict
from tagmill.models.base import create
from tagmill.models.open_clip import OpenClip
from tagmill.tag_system.core.errors import ConfigError

COMMIT = "b" * 40
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.open_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def load(folder):
    made = {}

    def loaded(**options):
        key = json.dumps(options, sort_keys=True)
        if key not in made:
            made[key] = OpenClip(f"local-dir:{folder}", device="cpu", **options)
            made[key].load()
        return made[key]

    return loaded


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


IMAGES = [picture(40, 56), picture(9, 200, 1), picture(32, 32, 2)]


def test_images_become_unit_vectors_whatever_their_batch(load):
    vectors = predict(load(), IMAGES)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    for image, vector in zip(IMAGES, vectors, strict=True):
        np.testing.assert_allclose(predict(load(), [image])[0], vector, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-2


def test_no_images_are_no_vectors(load):
    assert predict(load(), []).shape == (0, 24)


def test_names_become_unit_vectors_in_the_template_and_are_computed_once(load):
    model = load()
    first = model.text(["dog", "hot dog", "dog"])
    assert [vector.shape for vector in first] == [(24,)] * 3
    assert [vector.dtype for vector in first] == [np.float32] * 3
    np.testing.assert_allclose([np.linalg.norm(vector) for vector in first], 1, atol=1e-6)
    assert np.abs(first[0] - first[1]).max() > 1e-2
    assert model.text(["dog"])[0] is first[0] is first[2]
    plain = load(template="{}").text(["a photo of a dog."])
    np.testing.assert_allclose(plain[0], first[0], atol=1e-6)


def test_more_names_than_one_batch_come_back_in_order(load):
    names = [f"{a}{b}{c}" for a in "abcdefg" for b in "hijklmn" for c in "012345"]
    vectors = load().text(names)
    alone = load(dtype="float32").text(names[-1:])
    np.testing.assert_allclose(vectors[-1], alone[0], atol=1e-5)
    assert len(vectors) == len(names) > 256


def test_padding_keeps_the_ends_of_a_long_region_and_cropping_loses_them(load):
    long = picture(16, 96, 3)
    other_ends = long.copy()
    other_ends[:, :16] = 255 - other_ends[:, :16]
    change = {
        fit: np.abs(np.subtract(*predict(load(fit=fit), [long, other_ends]))).max()
        for fit in ("pad", "squash", "crop")
    }
    assert change["pad"] > 1e-2
    assert change["squash"] > 1e-2
    assert change["crop"] < 1e-6


@pytest.mark.parametrize("fit", ["pad", "squash", "crop"])
@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (2, 2000)], ids=str)
def test_an_image_of_a_line_is_embedded(load, fit, shape):
    image = np.zeros((*shape, 3), np.uint8)
    assert np.linalg.norm(predict(load(fit=fit), [image])) == pytest.approx(1, abs=1e-5)


def test_padding_is_of_the_mean_colour(load):
    middle = np.full((32, 96, 3), 128, np.uint8)
    square = np.full((32, 32, 3), 128, np.uint8)
    np.testing.assert_allclose(*predict(load(), [middle, square]), atol=1e-5)


def test_without_a_fit_the_checkpoint_decides(load, folder):
    np.testing.assert_array_equal(predict(load(fit=None), IMAGES), predict(load(fit="crop"), IMAGES))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_float32_vectors(load, dtype):
    vectors = predict(load(dtype=dtype), IMAGES)
    assert vectors.dtype == np.float32
    assert (vectors * predict(load(), IMAGES)).sum(axis=1).min() > 0.99
    assert (load(dtype=dtype).text(["dog"])[0] * load().text(["dog"])[0]).sum() > 0.99


def test_the_weights_are_really_those_of_the_file(load, tmp_path):
    other = OpenClip(f"local-dir:{tiny_models.open_clip(tmp_path / 'clip', seed=1)}", device="cpu")
    other.load()
    assert np.abs(predict(other, IMAGES) - predict(load(), IMAGES)).max() > 1e-2
    again = OpenClip(f"local-dir:{tiny_models.open_clip(tmp_path / 'same')}", device="cpu")
    again.load()
    np.testing.assert_array_equal(predict(again, IMAGES), predict(load(), IMAGES))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"no model folder {tmp_path}/nothing"):
        create("open-clip", {"model": f"local-dir:{tmp_path}/nothing"})


@pytest.mark.parametrize("name", [WEIGHTS, "open_clip_config.json"])
def test_a_missing_file_is_named(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=r"\*.safetensors|open_clip_config.json"):
        OpenClip(f"local-dir:{copy}")


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"no weights file {tmp_path}/w.safetensors"):
        OpenClip("ViT-B-32", pretrained=f"{tmp_path}/w.safetensors")


def test_cut_weights_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(ConfigError, match="cannot load CLIP model"):
        OpenClip(f"local-dir:{copy}", device="cpu").load()


def test_weights_of_another_shape_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 12
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="size mismatch"):
        OpenClip(f"local-dir:{copy}", device="cpu").load()


def test_an_unknown_architecture_is_refused(folder):
    with pytest.raises(ConfigError, match="ViT-Z-1"):
        OpenClip("ViT-Z-1", pretrained=str(folder / WEIGHTS), device="cpu").load()


def test_weights_that_are_none_and_names_that_are_none_are_refused(tmp_path):
    (tmp_path / "weights.pt").write_text("no weights")
    with pytest.raises(ConfigError, match="cannot load CLIP model ViT-B-32"):
        OpenClip("ViT-B-32", pretrained=str(tmp_path / "weights.pt"), device="cpu").load()
    with pytest.raises(ConfigError, match="'a/b/c' is not a name on the Hugging Face hub"):
        OpenClip("hf-hub:a/b/c", device="cpu").load()


@pytest.mark.parametrize(
    "options",
    [
        {"template": "a photo"},
        {"template": "{} or {}"},
        {"template": "{name}"},
        {"fit": "stretch"},
        {"dtype": "int8"},
        {"pretrained": "laion2b"},
        {"model": "ViT-B-32"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(folder, options):
    with pytest.raises(ConfigError):
        create("open-clip", {"model": f"local-dir:{folder}", **options})


def test_the_fingerprint_is_stable_and_follows_weights_and_options(folder, tmp_path):
    base = OpenClip(f"local-dir:{folder}").fingerprint()
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert OpenClip(f"local-dir:{copy}", device="cpu").fingerprint() == base
    other = tiny_models.open_clip(tmp_path / "other", seed=1)
    prints = {
        base,
        OpenClip(f"local-dir:{other}").fingerprint(),
        OpenClip(f"local-dir:{folder}", fit="crop").fingerprint(),
        OpenClip(f"local-dir:{folder}", template="{}").fingerprint(),
        OpenClip("ViT-B-32", pretrained=str(folder / WEIGHTS)).fingerprint(),
        OpenClip("ViT-B-32", pretrained=str(other / WEIGHTS)).fingerprint(),
        OpenClip("ViT-B-32", pretrained="openai").fingerprint(),
    }
    assert len(prints) == 7


def test_a_hub_name_is_read_from_the_cache_and_known_by_its_commit(folder, tmp_path, monkeypatch, load):
    import huggingface_hub.constants

    repository = tmp_path / "models--someone--clip"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = OpenClip("hf-hub:someone/clip", device="cpu")
    assert model.fingerprint() != load().fingerprint()
    model.load()
    np.testing.assert_array_equal(predict(model, IMAGES), predict(load(), IMAGES))
    with pytest.raises(ConfigError, match=r"someone/else.*cannot be downloaded"):
        OpenClip("hf-hub:someone/else").load()
