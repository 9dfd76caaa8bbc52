import json

import PIL.Image
import pytest
import torch

import tiny_models
from tagmill.models.ram import labels, store
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig
from tagmill.models.ram.ram import Ram
from tagmill.models.ram.ram_plus import RamPlus
from tagmill.runners.commands import models
from tagmill.runners.commands.predict import predict
from tagmill.runners.commands.vocabulary_embed import embed
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.files import sha256
from tagmill.tag_system.vocabulary import Vocabulary


@pytest.fixture
def folder(tmp_path):
    tiny_models.open_clip(tmp_path / "clip")
    (tmp_path / "tags.txt").write_text("red dog\ncat\nfire truck\n")
    texts = [{name: [f"a {name}", f"the {name}"]} for name in ("cat", "fire truck", "red dog")]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    return tmp_path


@pytest.mark.parametrize("kind", [Ram, RamPlus], ids=["names", "descriptions"])
def test_from_a_list_of_tags_to_a_tagger_of_them(folder, kind, capsys):
    encoder = EncoderConfig(name="resnet18", arguments={"channels": (8, 8, 8, 8)}, stages=(4,), width=8)
    sizes = {"image_size": 64, "dimension": 24, "head": HeadConfig(hidden=8, heads=2, inner=8)}
    name = "ram" if kind is Ram else "ram_plus"
    store.save(kind(RamConfig(kind=name, encoder=encoder, classes=["old"], **sizes)), folder / "old")
    described = folder / "texts.json" if kind is RamPlus else None
    options = {"clip": f"local-dir:{folder / 'clip'}", "descriptions": described, "device": "cpu"}
    embed(str(folder / "tags.txt"), output=folder / "labels.safetensors", **options)
    rows = 6 if described else 3
    assert f"3 tags, {rows} vectors of 24 numbers" in capsys.readouterr().out
    models.relabel(folder / "old", folder / "new", labels=folder / "labels.safetensors")
    config = store.load(folder / "new").config
    assert config.classes == ("red dog", "cat", "fire truck")
    assert config.vocabulary == Vocabulary.load(str(folder / "tags.txt")).digest
    image = folder / "image.png"
    PIL.Image.new("RGB", (40, 30), "red").save(image)
    capsys.readouterr()
    predict([image], folder / "new", threshold=0, device="cpu", as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert {tag["tag"] for tag in json.loads(line)["tags"]} == set(config.classes)


def test_nothing_is_embedded_twice_and_other_texts_are(folder, capsys, monkeypatch):
    output = folder / "labels.safetensors"
    arguments = {"clip": f"local-dir:{folder / 'clip'}", "output": output, "device": "cpu"}
    embed(str(folder / "tags.txt"), **arguments)
    before = sha256(str(output))
    with monkeypatch.context() as patch:
        patch.setattr(labels, "embed_names", None)
        embed(str(folder / "tags.txt"), **arguments)
    assert "up to date" in capsys.readouterr().out
    assert sha256(str(output)) == before
    texts = folder / "renamed.json"
    texts.write_text(json.dumps([{name: ["a thing"]} for name in ("cat", "fire truck", "red dog")]))
    embed(str(folder / "tags.txt"), descriptions=texts, **arguments)
    described = labels.load(output)
    (folder / "tags.txt").write_text("red hound\ncat\nfire truck\n")
    texts.write_text(texts.read_text().replace("dog", "hound"))
    embed(str(folder / "tags.txt"), descriptions=texts, **arguments)
    renamed = labels.load(output)
    assert renamed.classes == ("red hound", "cat", "fire truck")
    assert renamed.vocabulary == Vocabulary.load(str(folder / "tags.txt")).digest
    assert torch.equal(renamed.embeddings, described.embeddings)
    (folder / "tags.txt").write_text("cat\nred dog\n")
    embed(str(folder / "tags.txt"), **arguments)
    found = labels.load(output)
    assert found.classes == ("cat", "red dog")
    torch.testing.assert_close(found.embeddings.norm(dim=1), torch.ones(2))


def test_another_file_is_not_overwritten(folder):
    output = folder / "tags.txt"
    with pytest.raises(ConfigError, match="is not a file of `tagmill vocab embed`"):
        embed(str(output), clip=f"local-dir:{folder / 'clip'}", output=output, device="cpu")
    assert output.read_text().startswith("red dog")


def test_a_missing_clip_is_one_line(folder):
    with pytest.raises(ConfigError, match="needs pretrained"):
        embed(str(folder / "tags.txt"), clip="ViT-B-16-quickgelu", output=folder / "out.safetensors")
