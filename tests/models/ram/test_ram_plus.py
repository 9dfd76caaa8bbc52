"""The model against what the official implementation gives; the tolerances are what that keeps itself."""

import pytest
import torch

from tagmill.models.ram import tagging_head
from tagmill.models.ram.checkpoints import translate
from tagmill.models.ram.losses import alignment_loss, distillation_loss, tagging_loss
from tagmill.models.ram.ram_plus import RamPlus


def close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max().item() < tolerance


@pytest.fixture(scope="module")
def inputs(golden):
    return golden.tensors("inputs")


@pytest.fixture(scope="module")
def expected(golden):
    return golden.tensors("ram_plus_expected")


@pytest.fixture(scope="module")
def model(golden):
    return golden.ram_plus()


def losses(model, inputs):
    tokens = model.encode(inputs["image"])
    return {
        "loss_tag": tagging_loss(model.score(tokens), inputs["image_tag"]),
        "loss_dis": distillation_loss(tokens, inputs["clip_feature"]),
        "loss_alignment": alignment_loss(model.align(tokens, inputs["batch_text_embed"])),
    }


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
def test_logits(model, inputs, expected, gradients):
    with torch.set_grad_enabled(gradients):
        close(model(inputs["image"]).detach(), expected["infer.logits"], 2e-5)


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
def test_logits_in_double_precision_leave_no_room_for_another_formula(golden, inputs, expected, gradients):
    model = golden.ram_plus(torch.float64)
    with torch.set_grad_enabled(gradients):
        close(model(inputs["image"].double()).detach(), expected["infer.logits_float64"], 1e-9)


@torch.no_grad()
def test_folded_and_plain_attention_agree(golden, inputs, expected, monkeypatch):
    model = golden.ram_plus(torch.float64)
    tokens = model.encode(inputs["image"].double())
    assert all(len(memory) == 3 for memory in model.head.remember(tokens))
    many = tokens.repeat(1, 40, 1)
    assert all(len(memory) == 2 for memory in model.head.remember(many))
    # The same token many times over is the same memory; only the mean token is repeated with it.
    close(model.score(many), model.score(tokens), 1e-9)


@torch.no_grad()
def test_descriptions_are_weighted_by_the_image(model, inputs, expected):
    tokens = model.encode(inputs["image"])
    close(tokens[:, :2], expected["infer.image_embeds.first2"], 1e-5)
    close(model.weigh(tokens, model.labels), expected["infer.description_weights"], 1e-5)
    close(model.describe(tokens, model.labels)[:, :8], expected["infer.label_embed_reweight.first8"], 1e-5)


@torch.no_grad()
def test_other_labels_and_some_of_the_own(golden, model, inputs, expected):
    tokens = model.encode(inputs["image"])
    others = inputs["label_embed_open"].unflatten(0, (3, 7))
    close(model.score(tokens, others), expected["openset.logits.first3"])
    some = golden.values("ram_plus_expected")["subset_class_indices"]
    close(model.score(tokens, model.labels[some]), expected["subset.logits"])


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 39])
def test_chunks_of_classes_change_nothing(model, inputs, monkeypatch, chunk):
    whole = model(inputs["image"])
    monkeypatch.setattr(tagging_head, "CHUNK", chunk)
    close(model(inputs["image"]), whole, 1e-5)


@torch.no_grad()
def test_an_image_scores_the_same_alone(model, inputs):
    together = model(inputs["image"])
    alone = torch.cat([model(image[None]) for image in inputs["image"]])
    close(together, alone, 1e-5)


def test_alignment(model, inputs, expected):
    tokens = model.encode(inputs["image"])
    close(model.align(tokens, inputs["batch_text_embed"]).detach(), expected["train.alignment_logits"])


def test_losses(golden, model, inputs):
    wanted = golden.values("ram_plus_expected")["losses"]
    for name, loss in losses(model, inputs).items():
        assert loss.item() == pytest.approx(wanted[name], rel=2e-6)


def test_gradients(golden, inputs, expected):
    model = golden.ram_plus(torch.float64)
    model.label_embed.requires_grad_()
    sum(losses(model, {name: value.double() for name, value in inputs.items()}).values()).backward()
    ours = {
        "fc.bias": model.score_projection.bias,
        "fc.weight": model.score_projection.weight,
        "image_proj.bias": model.image_projection.bias,
        "reweight_scale": model.reweight_scale,
        "wordvec_proj.bias": model.label_projection.bias,
        "visual_encoder.norm.weight": model.encoder.trunk.norm.weight,
        "visual_encoder.patch_embed.proj.bias": model.encoder.trunk.patch_embed.proj.bias,
    }
    for name, parameter in ours.items():
        theirs = expected[f"grad.total.{name}"]
        torch.testing.assert_close(parameter.grad.float(), theirs, rtol=1e-4, atol=1e-4)
    rows = expected["grad.total.label_embed.first10"]
    torch.testing.assert_close(model.label_embed.grad[:10].float(), rows, rtol=1e-4, atol=1e-4)


def test_gradient_of_every_parameter_has_the_right_size(golden, inputs):
    model = golden.ram_plus(torch.float64)
    sum(losses(model, {name: value.double() for name, value in inputs.items()}).values()).backward()
    norms = golden.values("ram_plus_expected")["grad_norms_float64"]["train_total"]
    norms = translate({name: torch.tensor(norm) for name, norm in norms.items()}).weights
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert set(norms) == set(trained)
    for name, parameter in trained.items():
        assert parameter.grad.norm().item() == pytest.approx(norms[name].item(), rel=1e-5, abs=1e-8), name


def test_three_steps_of_adamw(golden, inputs, expected):
    model = golden.ram_plus()
    wanted = golden.values("ram_plus_expected")["adamw"]
    optimiser = torch.optim.AdamW(
        [value for value in model.parameters() if value.requires_grad],
        lr=wanted["lr"],
        weight_decay=wanted["weight_decay"],
    )
    for step in wanted["losses_before_each_step"][:3]:
        total = sum(losses(model, inputs).values())
        assert total.item() == pytest.approx(step["total"], rel=2e-5)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    with torch.no_grad():
        close(model(inputs["image"]), expected["adamw.logits"], 1e-3)


def test_any_timm_encoder_learns(tiny_config):
    torch.manual_seed(0)
    model = RamPlus(tiny_config())
    model.set_labels(torch.nn.functional.normalize(torch.randn(18, 16), dim=1))
    assert model.encode(torch.zeros(2, 3, 64, 64)).shape == (2, 1 + 4 * 4 + 2 * 2, 16)
    colours, targets = 2 * torch.randn(6, 3, 1, 1), torch.eye(6)
    images = colours + torch.randn(6, 3, 64, 64) / 10
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    before = model.label_embed.clone()
    history = []
    for _ in range(50):
        loss = tagging_loss(model(images), targets)
        history.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert history[-1] < history[0] / 2
    assert torch.equal(model.label_embed, before)


def test_labels_of_another_shape_are_refused(tiny_config):
    with pytest.raises(ValueError, match=r"must be \(18, 16\), got \(6, 16\)"):
        RamPlus(tiny_config()).set_labels(torch.zeros(6, 16))
