import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file

from commands import environment
from tagmill.models.base import create_tagger
from tagmill.models.ram import checkpoints, convert, export, graph, official, onnx_file, store
from tagmill.models.ram.config import METADATA, AlignmentConfig, EncoderConfig, RamConfig
from tagmill.tag_system.core.errors import ConfigError

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"
FULL_SIZE = {"ram": 4585, "ram_plus": 4585, "tag2text": 3429}

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference data is not here")


@pytest.fixture(params=["ram_plus", "tag2text"])
def model(golden, request):
    return golden.ram_plus() if request.param == "ram_plus" else golden.tag2text()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_an_exported_checkpoint_converts_to_the_same_model(golden, model, tmp_path, ending):
    path = tmp_path / f"model{ending}"
    done = export.export(model, path)
    kind, sizes = model.config.kind, golden.values("config")
    vocab = golden.path("vocab.txt") if kind == "tag2text" else None
    found = convert.convert(path, tmp_path / "folder", classes=sizes["tag_list"], vocab=vocab, text_heads=6)
    assert found.config.kind == kind
    again = store.load(tmp_path / "folder").state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())
    assert len(checkpoints.read(path)) == done.tensors


@needs_reference
@pytest.mark.parametrize("kind", FULL_SIZE)
def test_an_official_checkpoint_comes_back_to_the_bit(kind, tmp_path):
    path = REFERENCE / "mini" / kind / "model.pth"
    classes = json.loads((REFERENCE / "mini" / "config.json").read_text())["tag_list"]
    vocab = None if kind == "ram_plus" else REFERENCE / "mini" / "vocab.txt"
    convert.convert(path, tmp_path / "folder", classes=classes, vocab=vocab, text_heads=6)
    export.export(store.load(tmp_path / "folder"), tmp_path / "model.pth")
    expected = torch.load(path, weights_only=True)["model"]
    found = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


@needs_reference
@pytest.mark.parametrize("kind", FULL_SIZE)
def test_a_full_size_model_has_every_official_key(kind):
    listed = json.loads((REFERENCE / f"{kind}_state_dict.json").read_text())["tensors"]
    published = {
        key: torch.zeros((), dtype=getattr(torch, row["dtype"])).expand(row["shape"])
        for key, row in listed.items()
    }
    config = convert.infer(
        checkpoints.translate(published).weights, [str(place) for place in range(FULL_SIZE[kind])]
    )
    with torch.device("meta"):
        ours = store.build(config)
    text = config.text is not None
    found = {
        name: value.shape
        for key, value in official.tensors(ours)
        for name in official.names(key, kind, text=text)
    }
    if text:
        found |= {f"{part}position_ids": torch.Size([1, 512]) for part in official.POSITIONS}
    assert found == {key: torch.Size(row["shape"]) for key, row in listed.items()}


def test_an_alignment_branch_is_left_out_of_the_official_format(golden):
    plain = golden.tag2text_config()
    aligned = store.build(plain.model_copy(update={"alignment": AlignmentConfig()}))
    published = official.weights(aligned)
    assert published.keys() == official.weights(store.build(plain)).keys()
    assert torch.equal(published["label_embed.weight"], aligned.label_embed)


def test_an_encoder_that_the_official_code_lacks_is_refused(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="knows Swin encoders only, not resnet18: export to"):
        export.export(store.build(tiny_config()).eval(), tmp_path / "model.pth")


def test_only_new_files_of_known_formats_are_written(tiny_config, tmp_path):
    (tmp_path / "there.onnx").touch()
    for name, message in (("model.bin", "one of .pth, .safetensors, .onnx, .pt2"), ("there.onnx", "exists")):
        with pytest.raises(ConfigError, match=message):
            export.export(store.build(tiny_config()), tmp_path / name)


def shallow(config):
    """A model of random weights with all that an encoder has of each kind, once: a graph takes its time."""
    torch.manual_seed(0)
    arguments = config.encoder.arguments | {"depths": (1, 2), "num_heads": (1, 2)}
    encoder = EncoderConfig(name=config.encoder.name, arguments=arguments, width=16)
    model = store.build(config.model_copy(update={"encoder": encoder})).eval()
    torch.nn.init.normal_(model.label_embed)
    return model


@pytest.mark.parametrize("inside", [onnx_file.INSIDE, 0], ids=["in one file", "weights beside it"])
def test_an_onnx_file_takes_any_batch_and_knows_its_classes(golden, tmp_path, monkeypatch, inside):
    monkeypatch.setattr(onnx_file, "INSIDE", inside)
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = shallow(golden.config())
    assert export.export(model, tmp_path / "model.onnx").difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert RamConfig.model_validate_json(metadata[METADATA]) == model.config
    images = torch.randn(5, 3, 96, 96)
    (found,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(images), atol=1e-4, rtol=0)
    store.save(model, tmp_path / "folder")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 90, 3), np.uint8)
    (names, scores), (named, scored) = (
        answers(create_tagger(tmp_path / name, {}), pixels) for name in ("folder", "model.onnx")
    )
    assert list(named) == list(names)
    np.testing.assert_allclose(scored, scores, atol=1e-5)
    assert (tmp_path / "model.onnx.data").exists() == (inside == 0)
    assert run_without_torch(tmp_path / "model.onnx", tmp_path).startswith("3 images")


def answers(tagger, pixels):
    tagger.load()
    return tagger.classes, np.stack(tagger.predict([tagger.prepare(one) for one in pixels]))


def run_without_torch(path: Path, folder: Path) -> str:
    """Tag images in a process that has no torch."""
    for number in range(3):
        PIL.Image.new("RGB", (20, 30), (number, 90, 9)).save(folder / f"{number}.png")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['timm'] = None\n"
        "from tagmill.models.base import create_tagger\n"
        "import numpy, PIL.Image\n"
        "tagger = create_tagger(sys.argv[1], {}); tagger.load()\n"
        "images = [numpy.asarray(PIL.Image.open(path)) for path in sys.argv[2:]]\n"
        "found = tagger.predict([tagger.prepare(image) for image in images])\n"
        "print(len(found), 'images', len(found[0]), 'scores')"
    )
    images = [str(folder / f"{number}.png") for number in range(3)]
    command = [sys.executable, "-P", "-c", code, str(path), *images]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout


def test_a_torch_export_takes_any_batch(golden, tmp_path):
    model = shallow(golden.tag2text_config())  # ONNX goes by way of such an export, of RAM++
    assert export.export(model, tmp_path / "model.pt2").difference < 1e-5
    again = torch.export.load(tmp_path / "model.pt2").module()
    images = torch.randn(5, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images), atol=1e-5, rtol=0)


def test_a_graph_that_differs_is_not_kept(tiny_config, tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    monkeypatch.setattr(graph, "TOLERANCE", -1.0)
    with pytest.raises(ArithmeticError, match="logits differ"):
        export.export(store.build(tiny_config()).eval(), path)
    assert not path.exists()


def test_safetensors_hold_the_same_as_the_pickle(golden, tmp_path):
    model = golden.tag2text()
    for ending in (".pth", ".safetensors"):
        export.export(model, tmp_path / f"model{ending}")
    pickled = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    plain = load_file(tmp_path / "model.safetensors")
    assert plain.keys() == pickled.keys()
    assert all(torch.equal(plain[key], pickled[key]) for key in plain)
