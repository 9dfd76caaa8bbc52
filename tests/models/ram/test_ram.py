import pytest
import torch

from tagmill.models.ram.config import TextConfig
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.ram_plus import RamPlus

TEXT = TextConfig(heads=4, layers=3, inner=64, tokens=40, positions=40)


@torch.no_grad()
def test_one_description_a_class_makes_ram_plus_a_ram(golden):
    published = golden.ram_plus()
    first = published.labels[:, :1]
    plus = RamPlus(golden.config(descriptions=1))
    ram = Ram(golden.config(kind="ram", descriptions=1))
    weights = published.state_dict() | {"label_embed": first.flatten(0, 1)}
    plus.load_state_dict(weights)
    weights.pop("reweight_scale")
    ram.load_state_dict(weights)
    images = golden.tensors("inputs")["image"]
    torch.testing.assert_close(ram.eval()(images), plus.eval()(images), rtol=0, atol=1e-5)
    tokens = ram.encode(images)
    some = [3, 1, 39]
    torch.testing.assert_close(ram.score(tokens, ram.labels[some]), ram(images)[:, some], rtol=0, atol=1e-5)


def test_head_and_tag_encoder_share_their_layers_and_split_them_differently(tiny_config):
    model = Ram(tiny_config(kind="ram", descriptions=1, text=TEXT))
    shared = model.head.layers[0].attention
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(model.state_dict().keys() - {n for n, _ in model.named_buffers()})
    assert not any(name.startswith("text.tag_encoder.layers.0.cross") for name in names)
    assert any(name.startswith("text.tag_encoder.layers.2.cross") for name in names)
    tokens = torch.randn(2, 5, 16)
    assert model.text.tag_encoder.layers[0].see(tokens).keys.shape == (2, 4, 5, 8)
    assert shared.remember(tokens).keys.shape == (2, 2, 5, 16)
    ids = torch.randint(0, 40, (2, 7))
    model.text.loss(
        model.text.read(ids, torch.ones_like(ids), tokens), ids, torch.ones_like(ids), 4
    ).backward()
    assert shared.query.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ["ram", "ram_plus"])
def test_training_reaches_all_that_is_not_frozen(tiny_config, kind):
    model = {"ram": Ram, "ram_plus": RamPlus}[kind](tiny_config(kind=kind, descriptions=1))
    model.set_labels(torch.randn(6, 16))
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    frozen = {name for name, value in model.named_parameters() if value.grad is None}
    assert frozen == {"label_embed"}
