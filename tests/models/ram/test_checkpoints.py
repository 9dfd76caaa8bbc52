import pytest
import torch

from tagmill.models.ram import checkpoints
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture(scope="module")
def published(golden):
    return checkpoints.read(golden.path("ram_plus.safetensors"))


def test_every_key_is_translated_or_dropped_for_a_reason(golden, published):
    buffers = ["attn.relative_position_index", "attn_mask"]
    extra = {f"visual_encoder.layers.0.blocks.1.{name}": torch.zeros(2) for name in buffers}
    found = checkpoints.translate(published | extra)
    assert set(found.weights) == set(RamPlus(golden.config()).state_dict())
    assert set(found.dropped) == set(extra)
    assert all(found.dropped.values())


def test_the_old_name_of_the_head_is_known(published):
    old = {key.replace("tagging_head", "vision_multi"): value for key, value in published.items()}
    assert set(old) != set(published)
    assert set(checkpoints.translate(old).weights) == set(checkpoints.translate(published).weights)


def test_an_unknown_key_is_refused(published):
    more = published | {"momentum.queue": torch.zeros(1), "momentum.place": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"unknown key 'momentum\.queue'.* by leave_out"):
        checkpoints.translate(more)
    found = checkpoints.translate(more, ["momentum.", ""])
    assert found.weights.keys() == checkpoints.translate(published).weights.keys()
    assert found.dropped == dict.fromkeys(["momentum.queue", "momentum.place"], "as you said")


def test_missing_and_misshapen_weights_are_refused(golden, published):
    weights = checkpoints.translate(published).weights
    model = RamPlus(golden.config())
    with pytest.raises(ConfigError, match=r"do not fit the model: .*reweight_scale"):
        checkpoints.load({k: v for k, v in weights.items() if k != "reweight_scale"}, model)
    with pytest.raises(ConfigError, match=r"label_embed.*torch\.Size\(\[10, 512\]\)"):
        checkpoints.load(weights | {"label_embed": torch.zeros(10, 512)}, model)


def test_a_pickled_checkpoint_with_its_training_state(tmp_path, published):
    path = tmp_path / "ram_plus.pth"
    torch.save({"model": published, "optimizer": {"state": {}}, "config": {"batch": 52}, "epoch": 4}, path)
    read = checkpoints.read(path)
    assert set(read) == set(published)
    assert all(torch.equal(read[key], published[key]) for key in published)


class Anything:
    """A class that no checkpoint may hold."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": Anything()}, "cannot read the checkpoint"),
        ({"state_dict": {}}, "no weights under 'model'"),
        ({"model": {"fc.bias": [1.0]}}, "'fc.bias' under 'model' is not a tensor with a name"),
        ({"model": {1: torch.zeros(1)}}, "1 under 'model' is not a tensor with a name"),
        (b"no checkpoint", "cannot read the checkpoint"),
        (None, "cannot read the checkpoint"),
    ],
    ids=["code", "other-layout", "no-tensor", "no-name", "no-pickle", "no-file"],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content, message):
    path = tmp_path / "some.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=message):
        checkpoints.read(path)


def test_the_file_format_before_archives_is_read(tmp_path, published):
    path = tmp_path / "old.pth"
    torch.save({"model": published}, path, _use_new_zipfile_serialization=False)
    assert set(checkpoints.read(path)) == set(published)
