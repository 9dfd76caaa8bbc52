"""Activations that are computed again: the same gradients, and less that is kept."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tagmill.models.ram import store
from tagmill.models.ram.config import RamConfig
from tagmill.models.training import components
from tagmill.models.training.recipe import EngineConfig
from tagmill.tag_system.core.errors import ConfigError
from trainings import CLASSES, MODEL

ENCODERS = {
    "swin": {"name": "swin_tiny_patch4_window7_224", "width": 64, "arguments": {
        "embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 1, 2, 2], "window_size": 4}},
    "swin maps": {"name": "swin_tiny_patch4_window7_224", "width": 64, "stages": [2, 3], "arguments": {
        "embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 1, 2, 2], "window_size": 4, "img_size": 64}},
    "vit": {"name": "vit_tiny_patch16_224", "width": 64, "stages": [3], "arguments": {
        "embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 64}},
    "convnext": {"name": "convnext_atto", "width": 64, "stages": [2, 3], "arguments": {
        "dims": [8, 8, 16, 16], "depths": [2, 2, 2, 2]}},
    "resnet": {"name": "resnet18", "width": 64, "stages": [2, 3, 4], "arguments": {
        "layers": [2, 2, 2, 2], "channels": [8, 8, 16, 16]}},
}  # fmt: skip


def learned(encoder, images, *, checkpointing):
    """Gradients of the encoder, and how many numbers it kept for them."""
    kept = []
    config = RamConfig.model_validate({**MODEL, "image_size": 64, "encoder": encoder, "classes": CLASSES})
    torch.manual_seed(0)
    model = store.build(config).train()
    components.prepare(model, EngineConfig(checkpointing=checkpointing, batch_norm="frozen"))
    torch.manual_seed(1)  # of dropped paths

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = model.encoder(images)
    (tokens**2).sum().backward()
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    gradients = {name: value.grad for name, value in model.encoder.named_parameters()}
    return gradients, sum(sizes.values())


@pytest.mark.parametrize("name", ENCODERS)
def test_recomputed_blocks_give_the_same_gradients_and_keep_less(name):
    images = torch.randn(2, 3, 64, 64)
    plain, most = learned(ENCODERS[name], images, checkpointing=False)
    ours, least = learned(ENCODERS[name], images, checkpointing=True)
    assert all(torch.equal(ours[key], value) for key, value in plain.items())
    assert least < 0.9 * most  # a stem is not a block


def test_an_encoder_without_blocks_is_refused():
    encoder = {"name": "vgg11", "width": 16, "stages": [2], "arguments": {}}
    config = RamConfig.model_validate({**MODEL, "encoder": encoder, "classes": CLASSES})
    with pytest.raises(ConfigError, match="the encoder vgg11 has no blocks"):
        components.prepare(store.build(config), EngineConfig(checkpointing=True))
