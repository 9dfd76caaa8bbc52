import pytest
import torch

from tagmill.models.ram import store, streaming
from tagmill.models.ram.config import AlignmentConfig, TextConfig
from tagmill.models.ram.losses import asymmetric_loss
from tagmill.models.ram.streaming import streamed_loss

TEXT = TextConfig(heads=2, layers=2, inner=64, tokens=64, positions=64)
WIDTHS = {"ram_plus": 16, "ram": 16, "tag2text": 32}


@pytest.fixture(params=["ram_plus", "ram", "tag2text"])
def model(request, tiny_config):
    torch.manual_seed(0)
    kind = request.param
    settings = {"kind": kind, "descriptions": 3 if kind == "ram_plus" else 1}
    if kind == "tag2text":  # what does not score classes has no part in their loss
        settings |= {"text": TEXT, "alignment": AlignmentConfig(dimension=8)}
    one = store.build(tiny_config(**settings))
    if kind != "tag2text":
        one.set_labels(torch.nn.functional.normalize(torch.randn_like(one.label_embed), dim=1))
    return one.eval()


def gradients(model, tokens, loss_of_tokens):
    model.zero_grad()
    leaf = tokens.clone().requires_grad_()
    # Tokens are used elsewhere too, and the loss is scaled, as in a training.
    (loss_of_tokens(leaf * 2) * 0.3 + leaf.sum()).backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"tokens": leaf.grad, **found}


@pytest.mark.parametrize("rows", [1, 8, 100], ids=["class by class", "two at a time", "in one piece"])
def test_loss_and_gradients_are_those_of_all_classes_at_once(model, monkeypatch, rows):
    monkeypatch.setitem(streaming.ROWS, "cpu", rows)
    torch.manual_seed(1)
    model = model.double()
    tokens = torch.randn(4, 5, WIDTHS[model.config.kind], dtype=torch.float64)
    targets = (torch.rand(4, 6) < 0.4).double()
    seen = []

    def loss(logits, classes):
        seen.append(logits.shape[1])
        return asymmetric_loss(logits, targets[:, classes])

    whole = gradients(model, tokens, lambda one: loss(model.score(one), slice(None)))
    parts = gradients(model, tokens, lambda one: streamed_loss(model, one, loss))
    assert sum(seen[1:]) == 6
    assert max(seen[1:]) == max(1, min(6, rows // 4))
    assert parts.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-12)


def test_half_precision_is_as_near_in_pieces_as_at_once(model, monkeypatch):
    tokens = torch.randn(4, 5, WIDTHS[model.config.kind])

    def found():
        with torch.autocast("cpu", torch.bfloat16):
            parts = gradients(
                model, tokens, lambda one: streamed_loss(model, one, lambda logits, _: logits.float().sum())
            )
        assert {value.dtype for value in parts.values()} == {torch.float32}
        return torch.cat([value.flatten() for value in parts.values()])

    whole = found()
    monkeypatch.setitem(streaming.ROWS, "cpu", 4)
    assert (found() - whole).norm() < 0.02 * whole.norm()
