"""Grounding DINO exported to ONNX: what it finds is what the network of transformers finds."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tiny_models
from predicting import predict
from tagmill.models import grounding_dino_export
from tagmill.models.base import create
from tagmill.models.grounding_dino import GroundingDino
from tagmill.models.grounding_dino_images import size_within
from tagmill.models.onnx_grounding_dino import FILES, OnnxGroundingDino, attention_blocks
from tagmill.tag_system.core.errors import ConfigError

pytest.importorskip("onnxscript")

PROMPTS = [
    ["dog", "hot dog"],
    ["zebra crossing", "cat", "fire truck", "red car", "glass"],
    [],
    ["st. bernard", "dog", "dog"],
    [f"{a}{b}" for a in "abcdefghij" for b in "012"],  # more than one text holds
]


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


# Of the size that the model wants, so that nothing is resized; one that is padded below, one on the right.
IMAGES = [picture(64, 70), picture(90, 64, 1), picture(64, 64, 2), picture(64, 128, 3), picture(64, 64, 4)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint, and what was made of it."""
    return exported(tiny_models.grounding_dino, tmp_path_factory.mktemp("models"))


def exported(make, folder):
    grounding_dino_export.export(make(folder / "dino"), folder / "onnx")
    return folder / "dino", folder / "onnx"


def loaded(folders, **options):
    both = (
        GroundingDino(str(folders[0]), device="cpu", pad_to=128, **options),
        OnnxGroundingDino(str(folders[1]), **options),
    )
    for model in both:
        model.load()
    return both


@pytest.fixture(scope="module")
def both(folders):
    return loaded(folders)


def check_equal(found, expected, tolerance=1e-4):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.tags, other.tags)
        np.testing.assert_allclose(one.scores, other.scores, atol=tolerance)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=100 * tolerance)
        assert (one.tags.dtype, one.boxes.dtype, one.scores.dtype) == (np.int64, np.float32, np.float32)


@pytest.mark.parametrize(
    "options", [{}, {"span": "mean", "box_floor": 0.0}, {"nms_iou": 0.3, "tags_a_text": 2}], ids=str
)
def test_the_same_boxes_are_found(folders, options):
    torch_one, onnx_one = loaded(folders, **options)
    for image in IMAGES:
        np.testing.assert_allclose(onnx_one.prepare(image).pixels, torch_one.prepare(image).pixels, atol=1e-6)
    expected = predict(torch_one, IMAGES, PROMPTS)
    assert [len(one.tags) > 0 for one in expected] == [True, True, False, True, True]
    check_equal(predict(onnx_one, IMAGES, PROMPTS), expected)
    assert [onnx_one.lengths_of(one) for one in PROMPTS] == [torch_one.lengths_of(one) for one in PROMPTS]


def test_the_version_of_mmdetection_finds_the_same_too(tmp_path):
    torch_one, onnx_one = loaded(exported(tiny_models.mm_grounding_dino, tmp_path))
    check_equal(predict(onnx_one, IMAGES, PROMPTS), predict(torch_one, IMAGES, PROMPTS))


def test_an_images_boxes_depend_on_itself_alone_however_many_pairs_run_together(both):
    _, model = both
    together = predict(model, IMAGES, PROMPTS)
    model.read(PROMPTS, 3)
    check_equal(predict(model, IMAGES, PROMPTS), together, 1e-5)
    for image, prompt, found in zip(IMAGES, PROMPTS, together, strict=True):
        check_equal(predict(model, [image], [prompt]), [found], 1e-5)


@pytest.mark.parametrize("shape", [(50, 71), (200, 30), (1, 3000), (3000, 1), (8, 250)], ids=str)
def test_an_image_of_any_shape_is_resized_nearly_alike(both, shape):
    """Pillow rounds otherwise than torchvision: a pixel may differ by one of 255 steps."""
    torch_one, onnx_one = both
    image = picture(*shape)
    one, other = torch_one.prepare(image), onnx_one.prepare(image)
    assert (one.inside, one.shape) == (other.inside, other.shape)
    assert np.abs(one.pixels.numpy() - other.pixels).max() < 1.01 / 255 / 0.224
    assert onnx_one.size_of(*shape) == (128, 128)
    assert onnx_one.unpadded_size_of(*shape) == torch_one.unpadded_size_of(*shape)
    (found,) = predict(onnx_one, [image], [["dog"]])
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= [shape[1], shape[0]]).all()


side = st.one_of(st.integers(1, 40), st.integers(1, 3000))


@settings(max_examples=300, deadline=None)
@given(width=side, height=side, shortest=st.sampled_from([64, 800]), longest=st.sampled_from([128, 1333]))
@example(width=640, height=480, shortest=800, longest=1333)
@example(width=800, height=1333, shortest=800, longest=1333)
def test_the_size_of_an_image_is_that_of_transformers(width, height, shortest, longest):
    from transformers.image_transforms import get_size_with_aspect_ratio

    if max(width, height) > longest * min(width, height):
        return  # of a side that short nothing would be left: it is made longer first
    high, wide = get_size_with_aspect_ratio((height, width), shortest, longest)
    assert size_within(width, height, shortest, longest) == (wide, high)


def test_which_words_see_each_other_is_what_transformers_says():
    from transformers.models.grounding_dino import modeling_grounding_dino as code

    rng = np.random.default_rng(0)
    ids = rng.choice(
        [101, 102, 1012, 1029, 0, 7, 8, 9], (400, 12), p=[0.05, 0.05, 0.15, 0.05, 0.1, 0.2, 0.2, 0.2]
    )
    special = torch.tensor([101, 102, 1012, 1029])
    expected = code.generate_masks_with_special_tokens_and_transfer_map(torch.from_numpy(ids), special)
    for found, one in zip(attention_blocks(ids), expected, strict=True):
        np.testing.assert_array_equal(found, one.numpy())


@pytest.mark.parametrize(
    ("prompt", "said"), [(["dog", "?."], "tag 1 has no tokens"), (["x" * 70], "tag 0 has 71 tokens")]
)
def test_a_tag_that_no_text_can_hold_is_an_error(both, prompt, said):
    _, model = both
    with pytest.raises(ValueError, match=said):
        predict(model, IMAGES[:1], [prompt])
    with pytest.raises(ValueError, match="2 images but 1 prompts"):
        predict(model, IMAGES[:2], [["dog"]])


def test_the_same_model_gives_the_same_files_and_fingerprints(folders, tmp_path):
    grounding_dino_export.export(folders[0], tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folders[1] / name).read_bytes()
    base = OnnxGroundingDino(str(folders[1])).fingerprint()
    assert OnnxGroundingDino(str(tmp_path / "again")).fingerprint() == base
    assert OnnxGroundingDino(str(folders[1]), span="mean").fingerprint() != base


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_lacks_a_file_or_has_another_is_refused(folders, tmp_path, name):
    copy = shutil.copytree(folders[1], tmp_path / "copy")
    (copy / name).write_text("{}")
    with pytest.raises(ConfigError, match=name):
        OnnxGroundingDino(str(copy)).load()
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=name):
        create("onnx-grounding-dino", {"path": str(copy)})


@pytest.mark.parametrize(
    "options",
    [{"span": "sum"}, {"box_floor": 1.0}, {"nms_iou": 0.0}, {"tags_a_text": 0}, {"pad_to": 2}],
    ids=str,
)
def test_options_out_of_range_are_refused(folders, options):
    with pytest.raises(ConfigError):
        create("onnx-grounding-dino", {"path": str(folders[1]), **options})
