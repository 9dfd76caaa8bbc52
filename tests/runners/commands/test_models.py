import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands import call
from tagmill.models.ram import store
from tagmill.models.ram.config import AlignmentConfig, EncoderConfig, HeadConfig, RamConfig, TextConfig
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.runners.commands import models
from tagmill.runners.commands.export import export
from tagmill.tag_system.core.errors import ConfigError

GOLDEN = Path(__file__).parents[2] / "golden" / "ram"
SIZES = json.loads((GOLDEN / "config.json").read_text())


@pytest.fixture
def checkpoint(tmp_path):
    """RAM++ as it is published, with its lists beside it."""
    weights = load_file(GOLDEN / "ram_plus.safetensors")
    weights["visual_encoder.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 9, 9)
    torch.save({"model": weights, "epoch": 4}, tmp_path / "ram_plus.pth")
    (tmp_path / "tags.txt").write_text("\n".join(SIZES["tag_list"]) + "\n")
    limits = [1.0, 1, *SIZES["thresholds"][2:]]
    (tmp_path / "limits.txt").write_text("".join(f"{limit}\n" for limit in limits))
    return tmp_path / "ram_plus.pth"


@pytest.fixture
def convert(checkpoint):
    def convert(checkpoint=checkpoint, **options):
        folder = checkpoint.parent
        models.convert(checkpoint, folder / "out", **{"classes": folder / "tags.txt", **options})

    return convert


def test_from_a_checkpoint_to_a_folder_and_what_it_holds(tmp_path, checkpoint):
    lists = ["--classes", tmp_path / "tags.txt", "--thresholds", tmp_path / "limits.txt"]
    content = torch.load(checkpoint, weights_only=True)
    torch.save({"model": content["model"] | {"queue.images": torch.zeros(2)}}, checkpoint)
    lists += ["--leave-out", "queue."]
    out, err = call("models", "convert", checkpoint, tmp_path / "out", *lists, "--dtype", "float16")
    assert not err
    assert "left out 1 tensors: as you said" in out
    assert "ram_plus, 40 classes x 5 descriptions" in out
    assert "left out 1 tensors: follows from the image size" in out
    out, _ = call("models", "info", tmp_path / "out")
    said = dict(line.split(":", 1) for line in out.splitlines())
    said = {name: value.strip() for name, value in said.items()}
    assert said["kind"] == "ram_plus"
    assert said["thresholds"].endswith("2 of 1 never fire")
    assert said["normalisation"].endswith("(ImageNet)")
    assert said["classes"] == "40 classes x 5 descriptions, sign, two, cat, ..."
    assert said["image"].startswith("96 x 96")
    assert len(said["sha256"]) == 64
    _, err = call("models", "convert", checkpoint, tmp_path / "out", *lists, code=2)
    assert "exists already" in err


class Anything:
    """A class that no checkpoint may hold."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": Anything()}, "not a checkpoint of tensors and plain data"),
        (b"no checkpoint", "not a checkpoint of tensors and plain data"),
        (None, "there is no such file"),
        ({"model": {"backbone.conv1.weight": torch.zeros(1)}}, "unknown key 'backbone.conv1.weight'"),
        ({"state_dict": {}}, "no weights under 'model'"),
    ],
    ids=["code", "text", "no-file", "other-model", "other-layout"],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, convert, content, message):
    path = tmp_path / "odd.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=message) as error:
        convert(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "lists", "message"),
    [
        ({"classes": None}, {}, r"by --classes: ram_tag_list\.txt .*recognize-anything"),
        ({"classes": Path("none.txt")}, {}, r"none\.txt .*the official one is ram_tag_list"),
        ({}, {"tags.txt": "a\n\nb\n"}, r"tags\.txt:2 is empty"),
        ({}, {"tags.txt": "a\nb\nc\n"}, "3 classes do not fit 200 label embeddings of a ram_plus"),
        ({}, {"limits.txt": "0.5\nhalf\n"}, r"limits\.txt:2: 'half' is not a number"),
        ({}, {"limits.txt": "0.5\n"}, "1 thresholds for 40 classes"),
        ({}, {"limits.txt": "2\n" * 40}, r"thresholds\.0: Input should be less than or equal to 1"),
        ({"dtype": "int8"}, {}, "dtype must be one of"),
    ],
    ids=["no-list", "no-file", "empty-line", "too-few", "no-number", "one-number", "over-one", "dtype"],
)
def test_lists_that_do_not_fit_are_one_line(tmp_path, convert, options, lists, message):
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        convert(**{"thresholds": tmp_path / "limits.txt", **options})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*none/config\.json"):
        models.info(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "grounding-dino"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is not the config of a RAM model: encoder: Field required"):
        models.info(tmp_path)


def test_a_model_without_thresholds(tmp_path, capsys):
    encoder = EncoderConfig(name="resnet18", arguments={"channels": (8, 8, 8, 8)}, stages=(4,), width=8)
    head = HeadConfig(hidden=8, heads=2, inner=8)
    config = RamConfig(encoder=encoder, head=head, dimension=8, image_size=64, mean=(0, 0, 0), classes=["a"])
    store.save(RamPlus(config), tmp_path / "tiny")
    models.info(tmp_path / "tiny")
    said = capsys.readouterr().out
    assert "thresholds:    none" in said
    assert "(ImageNet)" not in said


def test_an_alignment_branch_is_told_and_left_out_of_an_export(tmp_path, capsys):
    config = RamConfig(
        kind="tag2text",
        encoder=EncoderConfig(
            name="swin_large_patch4_window12_384",
            arguments={"window_size": 2, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)},
            width=16,
        ),
        head=HeadConfig(hidden=8, heads=2, inner=8),
        image_size=32,
        classes=["a"],
        text=TextConfig(heads=2, layers=2, inner=8, tokens=40, positions=40),
        alignment=AlignmentConfig(dimension=4),
    )
    store.save(store.build(config), tmp_path / "tiny")
    models.info(tmp_path / "tiny")
    assert "2 layers, 40 tokens, aligned with images in 4 numbers" in capsys.readouterr().out
    export(tmp_path / "tiny", tmp_path / "tiny.pth")
    assert "left out: the image-text alignment branch" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "what"), [("none.pth", "there is no such file"), ("", "it is a folder")])
def test_a_checkpoint_that_is_not_there_is_named(tmp_path, name, what):
    (tmp_path / "classes.txt").write_text("red\n")
    options = ("--classes", tmp_path / "classes.txt")
    _, err = call("models", "convert", tmp_path / name, tmp_path / "out", *options, code=2)
    assert err == f"tagmill: cannot read the checkpoint {tmp_path / name}: {what}\n"
