from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny_models
from demo_recipe import detector
from demo_recipe.detector import DetectorRecipe, evaluate, train
from demo_recipe.detector_batches import Batches, Prompts
from demo_recipe.detector_loss import Targets, detection_loss, overlap
from predicting import predict
from tagmill.models.base import Boxes
from tagmill.models.grounding_dino import GroundingDino

NAMES = ("dog", "cat", "car", "fire truck", "glass", "oil")
COLOURS = ((230, 40, 40), (40, 220, 60), (50, 70, 230), (230, 220, 40), (230, 60, 220), (60, 220, 220))
RECIPE = DetectorRecipe(steps=61, batch=6, warmup=5, longest=4, checkpoint_every=20)


def scene_set(count=24, seed=0):
    """Scenes of one or two squares, of which the colour tells the name."""
    rng = np.random.default_rng(seed)
    images = rng.integers(90, 110, (count, 128, 128, 3)).astype(np.uint8)
    boxes, labels = [], []
    for image in images:
        label = rng.choice(len(NAMES), size=rng.integers(1, 3), replace=False)
        sides = rng.integers(30, 50, len(label))
        corners = np.stack(
            [rng.integers(0, 14, len(label)) + [0, 64][: len(label)], rng.integers(0, 78, len(label))], 1
        )
        for (x, y), side, name in zip(corners, sides, label, strict=True):
            image[y : y + side, x : x + side] = COLOURS[name]
        boxes.append(np.concatenate([corners, corners + sides[:, None]], 1).astype(np.float32))
        labels.append(label.astype(np.int64))
    groups = np.array([0, 0, 1, 1, 2, 2])
    return SimpleNamespace(images=images, boxes=boxes, labels=labels, names=NAMES, groups=groups)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import BertTokenizer

    return BertTokenizer(vocab=tiny_models.word_pieces())


@pytest.fixture(scope="module")
def backbone():
    from transformers import ResNetBackbone, ResNetConfig

    torch.manual_seed(0)
    return ResNetBackbone(ResNetConfig(**detector.BACKBONE)).state_dict()


@pytest.fixture(scope="module")
def trained(tokenizer, backbone, tmp_path_factory):
    folder, work = tmp_path_factory.mktemp("detector"), tmp_path_factory.mktemp("work")
    log = []
    train(scene_set(), backbone, tokenizer, folder, RECIPE, log.append, work)
    return folder, log


def test_the_loss_falls(trained):
    _, log = trained
    assert [entry["step"] for entry in log] == [0, 20, 40, 60]
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]


def test_the_saved_folder_is_a_localizer(trained):
    folder, _ = trained
    localizer = GroundingDino(str(folder), device="cpu", box_floor=0)
    localizer.load()
    (found,) = predict(localizer, [scene_set().images[0]], [["dog", "fire truck"]])
    assert set(found.tags) == {0, 1}
    assert (folder / "model.safetensors").stat().st_size < 10_000_000


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(tokenizer, backbone, tmp_path):
    def stop(entry):
        if entry["step"] == 20:
            raise KeyboardInterrupt

    data, recipe = scene_set(6), DetectorRecipe(steps=23, batch=2, warmup=5, longest=4, checkpoint_every=19)
    train(data, backbone, tokenizer, tmp_path / "whole", recipe, lambda entry: None, tmp_path / "1")
    arguments = (data, backbone, tokenizer, tmp_path / "saved", recipe)
    with pytest.raises(KeyboardInterrupt):
        train(*arguments, stop, tmp_path / "2")
    log = []
    train(*arguments, log.append, tmp_path / "2")
    assert [entry["step"] for entry in log] == [20]
    whole, saved = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "saved"))
    assert saved.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(saved[name], whole[name])] == []


def test_evaluate_counts_what_is_found_at_each_threshold(trained):
    rows = evaluate(trained[0], scene_set(8, seed=1), [0.0, 0.99], prompt_size=4)
    assert [row["threshold"] for row in rows] == [0.0, 0.99]
    assert all(0 <= row[key] <= 1 for row in rows for key in ("precision", "recall", "recall_36_to_48"))
    assert rows[0]["recall"] >= rows[1]["recall"]


def test_a_box_is_found_once_and_by_its_own_tag():
    truth = np.array([[0, 0, 40, 40], [60, 60, 100, 100]], dtype=np.float32)
    boxes = np.array([[0, 0, 40, 38], [0, 0, 40, 40], [60, 60, 100, 98], [60, 60, 70, 70]], dtype=np.float32)
    found = Boxes(np.zeros(4, np.int64), boxes, np.array([0.5, 0.9, 0.7, 0.8], np.float32))
    hits = detector._hits(found, np.array([3, 3, 5, 4]), truth, np.array([3, 4]))
    assert hits.tolist() == [-1, 0, -1, -1]


def test_targets_are_the_asked_tags_own_tokens_and_mirrored_boxes(tokenizer):
    data = scene_set(1)
    data.boxes[0] = np.array([[0, 32, 64, 128]], dtype=np.float32)
    data.labels[0] = np.array([3])
    batch = Batches(data, tokenizer, Prompts((2, 4), 0.4, 0.0), batch=2, seed=0).draw(0)
    for i, row in enumerate(batch.rows):
        assert batch.targets.boxes[i, 0].tolist() == [0.25 if row == 0 else 0.75, 0.625, 0.5, 0.75]
        words = tokenizer.convert_ids_to_tokens(batch.ids[i][batch.targets.tokens[i, 0]])
        assert words == ["fire", "truck"]
    assert sorted(batch.rows) == [0, 1]


def test_a_tag_that_is_left_out_is_neither_asked_nor_a_target(tokenizer):
    data = scene_set(4)
    prompts = Prompts((3, 3), 0.4, 1.0)
    asked = prompts.draw(data.labels[0], data.groups, np.random.default_rng(0))
    assert len(set(asked)) == 3
    assert not set(asked) & set(data.labels[0])
    assert not Batches(data, tokenizer, prompts, batch=4, seed=0).draw(0).targets.present.any()


def test_wrong_tags_are_mostly_of_the_true_tags_groups_if_so_asked():
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(10), 4)
    drawn = [Prompts((2, 2), 0.9, 0.0).draw(np.array([5]), groups, rng) for _ in range(200)]
    alike = np.mean([np.isin(prompt, [4, 6, 7]).any() for prompt in drawn])
    assert 0.85 < alike < 0.97


def test_overlap_of_known_boxes():
    box = torch.tensor([0.5, 0.5, 0.2, 0.2])
    half = torch.tensor([0.55, 0.5, 0.1, 0.2])
    apart = torch.tensor([0.9, 0.5, 0.2, 0.2])
    assert [value.item() for value in overlap(box, half)] == pytest.approx([0.5, 0.5])
    assert [value.item() for value in overlap(box, apart)] == pytest.approx([0, -1 / 3], abs=1e-6)


def test_right_answers_cost_almost_nothing_and_wrong_ones_much():
    true = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3]]])
    tokens = torch.tensor([[[False, True, False], [False, False, True]]])
    targets = Targets(true, torch.ones(1, 2, dtype=torch.bool), tokens, torch.ones(1, 3, dtype=torch.bool))
    boxes = true.repeat_interleave(4, dim=1)
    logits = torch.where(tokens, 9.0, -9.0).repeat_interleave(4, dim=1)
    output = SimpleNamespace(enc_outputs_coord_logits=boxes.logit(), enc_outputs_class=logits)
    one_each = (torch.where(tokens, 9.0, -9.0), true)
    assert detection_loss(output, [one_each], targets) < 0.01
    swapped = (one_each[0].flip(1), true)
    assert detection_loss(output, [swapped], targets) > 1


def test_another_backbone_or_recipe_does_not_go_on_from_an_old_checkpoint(
    trained, tokenizer, backbone, tmp_path
):
    short = DetectorRecipe(steps=2, batch=2, checkpoint_every=2)
    other = {
        name: weights * 1.5 if weights.is_floating_point() else weights for name, weights in backbone.items()
    }
    for weights, recipe in (
        (backbone, short),
        (other, short),
        (backbone, DetectorRecipe(steps=2, batch=3, checkpoint_every=1)),
    ):
        train(scene_set(4), weights, tokenizer, tmp_path / "saved", recipe, lambda entry: None, tmp_path)
    assert len(list(tmp_path.rglob("stage3.npy"))) == 2
    assert len(list(tmp_path.rglob("checkpoint-*.pt"))) == 3
