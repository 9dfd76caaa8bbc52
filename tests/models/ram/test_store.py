import errno
import json

import pytest
import torch

from tagmill.models.ram import store
from tagmill.models.ram.config import EncoderConfig, read, write
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture
def saved(tmp_path, tiny_config):
    torch.manual_seed(0)
    model = RamPlus(tiny_config(thresholds=(0.5,) * 6, vocabulary="ab" * 32)).eval()
    model.set_labels(torch.randn(18, 16))
    return model, tmp_path / "model"


@torch.no_grad()
def test_a_model_comes_back_as_it_was(saved):
    model, folder = saved
    store.save(model, folder)
    found = store.load(folder)
    assert found.config == model.config
    assert not found.training
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(found(images), model(images))


@torch.no_grad()
def test_half_the_bytes_are_read_as_float32(saved):
    model, folder = saved
    store.save(model, folder, dtype=torch.float16)
    found = store.load(folder)
    assert {value.dtype for value in found.parameters()} == {torch.float32}
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(found(images), model(images), rtol=0, atol=2e-2)


@torch.no_grad()
def test_the_official_encoder_comes_back_too(tmp_path, golden):
    model = golden.ram_plus()
    store.save(model, tmp_path)
    images = golden.tensors("inputs")["image"]
    assert torch.equal(store.load(tmp_path)(images), model(images))


def change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not the config .*JSON"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot read .*safetensors"),
        (lambda folder: change(folder, classes=["one"]), "weights do not fit|thresholds for 1 classes"),
        (lambda folder: change(folder, dimension=24), "weights do not fit the model: .*size mismatch"),
        (lambda folder: change(folder, size=1), "size: Extra inputs"),
        (lambda folder: change(folder, kind="bert"), "kind: Input should be"),
        (lambda folder: change(folder, head={"hidden": 30, "heads": 4}), "multiple of heads"),
    ],
    ids=["config", "weights", "json", "broken", "classes", "shape", "unknown", "kind", "heads"],
)
def test_a_bad_folder_is_refused_in_one_line(saved, spoil, message):
    model, folder = saved
    store.save(model, folder)
    spoil(folder)
    with pytest.raises(ConfigError, match=message):
        store.load(folder)


def test_a_config_that_cannot_be_written_leaves_the_old_one(saved, monkeypatch):
    model, folder = saved
    store.save(model, folder)
    files = sorted(folder.iterdir())

    def full(path, text):
        path.write_bytes(text.encode()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(folder), "write_text", full)
    with pytest.raises(ConfigError, match=r"cannot write .*model/config\.json: No space left on device"):
        write(model.config.model_copy(update={"thresholds": (0.1,) * 6}), folder)
    assert read(folder) == model.config
    assert sorted(folder.iterdir()) == files


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no model folder"):
        store.load(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"cannot read .*config"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (EncoderConfig(name="no_such_net", width=8), "timm cannot build the encoder no_such_net"),
        (EncoderConfig(name="resnet18", width=8), "timm cannot build|name its stages"),
        (EncoderConfig(name="resnet18", stages=(9,), width=8), "timm cannot build the encoder resnet18"),
        (EncoderConfig(name="swin_tiny_patch4_window7_224", width=8), "is 768 wide, width says 8"),
    ],
    ids=["name", "no-stages", "stage", "width"],
)
def test_an_encoder_that_cannot_be_built_is_refused(tiny_config, encoder, message):
    with pytest.raises(ConfigError, match=message):
        store.build(tiny_config(encoder=encoder, image_size=224))
