import json
import shutil
import warnings

import numpy as np
import pytest

import tiny_models
from predicting import predict
from tagmill.models.base import Boxes, create
from tagmill.models.grounding_dino import GroundingDino
from tagmill.tag_system.core.errors import ConfigError, DataError

COMMIT = "a" * 40
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.grounding_dino(tmp_path_factory.mktemp("models") / "dino")


@pytest.fixture(scope="module")
def load(folder):
    made = {}

    def loaded(**options):
        key = json.dumps(options, sort_keys=True)
        if key not in made:
            made[key] = GroundingDino(str(folder), device="cpu", **options)
            made[key].load()
        return made[key]

    return loaded


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


def difference(one: Boxes, other: Boxes) -> float:
    """Largest difference of scores, and of boxes as a fraction of 100 pixels."""
    np.testing.assert_array_equal(one.tags, other.tags)
    scores = np.abs(one.scores - other.scores).max(initial=0)
    return max(scores, np.abs(one.boxes - other.boxes).max(initial=0) / 100)


def differ(one: Boxes, other: Boxes) -> bool:
    return one.tags.tolist() != other.tags.tolist() or difference(one, other) > 1e-2


IMAGES = [picture(50, 70), picture(90, 40, 1), picture(50, 70, 2), picture(64, 64, 3)]
PROMPTS = [
    ["dog", "hot dog"],
    ["zebra crossing", "cat", "fire truck", "red car", "glass"],
    ["oil"],
    ["dog", "giraffe"],
]


@pytest.mark.parametrize("options", [{}, {"span": "mean"}, {"pad_to": 64}], ids=["max", "mean", "padded"])
def test_mixed_prompts_and_sizes_in_a_batch_equal_one_by_one(load, options):
    model = load(**options)
    batch = predict(model, IMAGES, PROMPTS)
    for image, prompt, found in zip(IMAGES, PROMPTS, batch, strict=True):
        (alone,) = predict(model, [image], [prompt])
        assert len(found.tags) > 0
        assert difference(found, alone) < 1e-5


def test_the_version_of_mmdetection_gives_the_same_in_a_batch_and_alone(tmp_path):
    model = GroundingDino(str(tiny_models.mm_grounding_dino(tmp_path / "mm")), device="cpu", box_floor=0.0)
    model.load()
    assert type(model._model).__name__ == "MMGroundingDinoForObjectDetection"
    batch = predict(model, IMAGES, PROMPTS)
    for image, prompt, found in zip(IMAGES, PROMPTS, batch, strict=True):
        assert set(found.tags.tolist()) == set(range(len(prompt)))
        assert difference(found, predict(model, [image], [prompt])[0]) < 1e-5


def test_an_image_may_come_twice_with_two_prompts(load):
    image = IMAGES[0]
    dog, cat = model_answers = predict(load(), [image, image], [["dog"], ["cat"]])
    assert differ(dog, cat)
    for prompt, found in zip(["dog", "cat"], model_answers, strict=True):
        assert difference(found, predict(load(), [image], [[prompt]])[0]) < 1e-5


def test_a_prompt_of_200_tags_is_split_and_equals_separate_prompts(load):
    model = load()
    names = [f"{a}{b}" for a in "abcdefghijklmnopqrst" for b in "0123456789"]
    # [CLS] and [SEP] leave 62 of 64 tokens: 20 tags of two pieces and a dot.
    (found,) = predict(model, [IMAGES[0]], [names])
    parts = [predict(model, [IMAGES[0]], [names[i : i + 20]])[0] for i in range(0, 200, 20)]
    joined = Boxes(
        np.concatenate([part.tags + 20 * i for i, part in enumerate(parts)]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
    assert len(set(found.tags.tolist())) > 100
    assert difference(found, joined) < 1e-5


def test_a_tag_gets_the_score_of_its_own_tokens_also_if_cut_into_pieces(load, folder):
    import torch
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    inputs = processor(images=IMAGES[0], text="dog . zebra . hot dog .", return_tensors="pt", do_pad=False)
    words = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert words[3:8] == ["z", "##e", "##b", "##r", "##a"]
    assert words[8:] == [".", "hot", "dog", ".", "[SEP]"]
    with torch.inference_mode():
        scores = model(**inputs).logits.sigmoid()[0]
    (found,) = predict(load(box_floor=0, nms_iou=1.0), [IMAGES[0]], [["dog", "zebra", "hot dog"]])
    for tag, span in enumerate([slice(1, 2), slice(3, 8), slice(9, 11)]):
        expected = np.sort(scores[:, span].amax(1).numpy())[::-1]
        np.testing.assert_allclose(found.scores[found.tags == tag], expected, atol=1e-5)


def test_the_mean_over_a_span_is_never_above_its_maximum(load):
    prompt = [["dog", "zebra crossing"]]
    (best,) = predict(load(box_floor=0.0), IMAGES[:1], prompt)
    (mean,) = predict(load(box_floor=0.0, span="mean"), IMAGES[:1], prompt)
    assert mean.scores[mean.tags == 1].max() < best.scores[best.tags == 1].max()
    np.testing.assert_allclose(
        mean.scores[mean.tags == 0].max(), best.scores[best.tags == 0].max(), atol=1e-6
    )


def test_a_tag_inside_another_tag_and_a_repeated_tag_stay_apart(load):
    (found,) = predict(load(), [IMAGES[0]], [["hot dog", "dog", "dog"]])
    by_tag = [found.scores[found.tags == tag] for tag in range(3)]
    assert all(len(scores) > 0 for scores in by_tag)
    assert not np.isin(by_tag[0], by_tag[1]).any()
    np.testing.assert_array_equal(found.tags, np.sort(found.tags))


def test_a_dot_inside_a_tag_does_not_split_it(load):
    prompts = [["st. bernard", "what?", "Dog"], ["st bernard", "what", "dog"]]
    with_dots, without = predict(load(), [IMAGES[0]] * 2, prompts)
    assert difference(with_dots, without) < 1e-6


@pytest.mark.parametrize("tag", ["?.", "", " . "])
def test_a_tag_without_any_token_is_an_error(load, tag):
    with pytest.raises(ValueError, match="tag 1 has no tokens"):
        predict(load(), [IMAGES[0]], [["dog", tag]])


def test_a_tag_longer_than_a_text_is_an_error_and_never_cut(load):
    with pytest.raises(ValueError, match="tag 0 has 71 tokens; one prompt has room for 1 to 62"):
        predict(load(), [IMAGES[0]], [["x" * 70]])


def test_boxes_are_in_pixels_inside_the_image_and_sorted(load):
    for image, found in zip(IMAGES, predict(load(box_floor=0.0), IMAGES, PROMPTS), strict=True):
        height, width, _ = image.shape
        left, top, right, bottom = found.boxes.T
        assert left.min() >= 0
        assert top.min() >= 0
        assert right.max() <= width
        assert bottom.max() <= height
        assert (right - left).min() >= 1
        assert (bottom - top).min() >= 1
        assert right.max() > 2  # pixels and not fractions
        assert (np.diff(found.tags) >= 0).all()
        assert (np.diff(found.scores)[np.diff(found.tags) == 0] <= 0).all()
        assert (found.tags.dtype, found.boxes.dtype) == (np.int64, np.float32)
        assert found.scores.dtype == np.float32


def overlap(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = np.prod(np.clip(high - low, 0, None))
    areas = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])
    return common / (areas - common)


def test_suppression_is_by_tag(load):
    prompt = [["dog", "cat"]]
    (every,) = predict(load(box_floor=0.0, nms_iou=1.0), IMAGES[:1], prompt)
    (few,) = predict(load(box_floor=0.0, nms_iou=0.3), IMAGES[:1], prompt)
    assert len(few.tags) < len(every.tags)
    for tag in (0, 1):
        boxes = few.boxes[few.tags == tag]
        pairs = [overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert max(pairs, default=0) <= 0.3
        assert few.scores[few.tags == tag].max() == every.scores[every.tags == tag].max()
    across = [overlap(a, b) for a in few.boxes[few.tags == 0] for b in few.boxes[few.tags == 1]]
    assert max(across) > 0.9


def test_the_floor_drops_low_scores_only(load):
    (every,) = predict(load(box_floor=0.0, nms_iou=1.0), IMAGES[:1], PROMPTS[:1])
    (high,) = predict(load(box_floor=0.6, nms_iou=1.0), IMAGES[:1], PROMPTS[:1])
    assert 0 < len(high.scores) < len(every.scores)
    np.testing.assert_array_equal(high.scores, every.scores[every.scores > 0.6])


def test_an_empty_prompt_finds_nothing_and_is_not_looked_at(load):
    nothing, something = load().predict([None, load().prepare(IMAGES[0])], [[], ["dog"]])
    assert nothing.tags.shape == (0,)
    assert nothing.boxes.shape == (0, 4)
    assert len(something.tags) > 0
    assert predict(load(), [], []) == []


def test_the_size_option_reaches_the_model(load):
    small = predict(load(shortest=32, longest=48), IMAGES[:1], PROMPTS[:1])
    assert differ(*small, *predict(load(), IMAGES[:1], PROMPTS[:1]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_float32_results(load, dtype):
    (found,) = predict(load(dtype=dtype), IMAGES[:1], PROMPTS[:1])
    assert len(found.scores) > 0
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 250), "2x64"), ((1, 3000), "1x64"), ((3000, 1), "64x1")], ids=str
)
def test_an_image_too_thin_for_the_model_is_bad_data(load, shape, size):
    image = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(DataError, match=f"image_too_thin: resized to {size}"):
        predict(load(longest=64), [image], [["dog"]])


def test_mismatched_lists_are_an_error(load):
    with pytest.raises(ValueError, match="2 images but 1 prompts"):
        predict(load(), IMAGES[:2], [["dog"]])


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"no model folder {tmp_path}/nothing"):
        create("grounding-dino", {"path": f"{tmp_path}/nothing"})


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    with pytest.raises(ConfigError, match=name):
        GroundingDino(str(copy))


def test_another_kind_of_model_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "config.json").write_text('{"model_type": "owlvit"}')
    with pytest.raises(ConfigError, match="owlvit"):
        GroundingDino(str(copy))


def test_cut_or_incomplete_weights_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = {name: values.clone() for name, values in load_file(copy / WEIGHTS).items()}
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(ConfigError, match="cannot load"):
        GroundingDino(str(copy)).load()
    del weights["model.level_embed"]
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks the weights.*level_embed"):
        GroundingDino(str(copy)).load()


def test_a_vocabulary_with_the_dot_elsewhere_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    saved = json.loads((copy / "tokenizer.json").read_text())
    words = saved["model"]["vocab"]
    words["."], words["[unused5]"] = words["[unused5]"], words["."]
    (copy / "tokenizer.json").write_text(json.dumps(saved))
    with pytest.raises(ConfigError, match="tokenizer"):
        GroundingDino(str(copy)).load()


@pytest.mark.parametrize(
    "options",
    [
        {"span": "sum"},
        {"dtype": "int8"},
        {"box_floor": 1.0},
        {"nms_iou": 0.0},
        {"pad_to": 0},
        {"shortest": 0},
        {"batch": 3},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(folder, options):
    with pytest.raises(ConfigError):
        create("grounding-dino", {"path": str(folder), **options})


def test_the_fingerprint_is_stable_and_follows_weights_and_options(folder, tmp_path):
    base = GroundingDino(str(folder)).fingerprint()
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "README.md").write_text("not part of the model")
    assert GroundingDino(str(copy), device="cpu").fingerprint() == base
    changed = {
        GroundingDino(str(folder), **options).fingerprint()
        for options in ({"span": "mean"}, {"box_floor": 0.1}, {"pad_to": 32}, {"shortest": 32})
    }
    other = tiny_models.grounding_dino(tmp_path / "other", seed=1)
    changed.add(GroundingDino(str(other)).fingerprint())
    assert len(changed | {base}) == 6


@pytest.fixture
def cache(folder, tmp_path, monkeypatch):
    """The cache of the hub with one repository, on a machine without a network."""
    import huggingface_hub.constants

    repository = tmp_path / "models--someone--dino"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repository / "snapshots" / COMMIT


def test_a_hub_name_is_read_from_the_cache_and_known_by_its_commit(cache, load):
    model = GroundingDino("someone/dino", device="cpu")
    pinned = GroundingDino("someone/dino", revision=COMMIT)
    assert model.fingerprint() == pinned.fingerprint() != load().fingerprint()
    model.load()
    (cached,), (local,) = (predict(m, IMAGES[:1], PROMPTS[:1]) for m in (model, load()))
    assert difference(cached, local) == 0


def test_a_hub_name_that_is_not_cached_or_only_in_part_is_a_plain_error(cache):
    with pytest.raises(ConfigError, match=r"someone/else.*no config\.json, no model.*cannot be downloaded"):
        GroundingDino("someone/else").load()
    (cache / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no model\.safetensors"):
        GroundingDino("someone/dino").fingerprint()


def test_predicting_warns_of_nothing(load):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(load(), IMAGES[:1], PROMPTS[:1])
