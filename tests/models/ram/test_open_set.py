"""ONNX files of `tagmill models export --open-set`: other classes without another export."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from commands import environment, tagmill
from tagmill.models.base import create_tagger
from tagmill.models.ram import export, labels, onnx_file, store
from tagmill.models.ram.config import EncoderConfig, HeadConfig, RamConfig
from tagmill.tag_system.core.errors import ConfigError

pytest.importorskip("onnxscript")

OLD = ("dog", "cat", "red", "sky")


def unit(rows, width=16, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=chance), dim=1)


def small(kind):
    """A RAM or RAM++ of random weights whose scores are far apart."""
    torch.manual_seed(1)
    encoder = EncoderConfig(name="resnet18", arguments={"channels": (8, 8, 8, 8)}, stages=(3, 4), width=8)
    descriptions = 3 if kind == "ram_plus" else 1
    config = RamConfig(
        kind=kind,
        image_size=64,
        encoder=encoder,
        dimension=16,
        head=HeadConfig(hidden=8, heads=2, inner=8),
        classes=OLD,
        descriptions=descriptions,
        thresholds=(0.5,) * len(OLD),
    )
    model = store.build(config).eval()
    model.set_labels(unit(len(OLD) * descriptions))
    return model


def write_labels(path, classes, descriptions=1, **changes):
    made = unit(len(classes) * descriptions, **changes)
    labels.save(labels.Labels(tuple(classes), made, "d" * 64, "v" * 64), path)
    return path


@pytest.fixture(scope="module", params=["ram", "ram_plus"])
def exported(request, tmp_path_factory):
    """The folder of a model, and its file."""
    folder = tmp_path_factory.mktemp(request.param)
    store.save(small(request.param), folder / "model")
    out, _ = tagmill("models", "export", folder / "model", folder / "open.onnx", "--open-set")
    assert "with the option labels it takes other classes" in out
    assert "so it takes other classes" in (folder / "open.onnx.md").read_text()
    return folder


def scores(name, options, pixels):
    tagger = create_tagger(name, options)
    tagger.load()
    return np.stack(tagger.predict([tagger.prepare(one) for one in pixels]))


def check_new_classes(folder, onnx, out):
    """Compare the file's scores with those of relabelled copies, for several counts and batches."""
    descriptions = 4 if store.load(folder).config.kind == "ram_plus" else 1
    for classes, batch in ((1, 1), (3, 2), (40, 5)):
        names = [f"tag {number}" for number in range(classes)]
        path = write_labels(out / f"{classes}.safetensors", names, descriptions, seed=classes)
        labels.relabel(folder, labels.load(path), out / f"{classes}")
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 50, 70, 3), np.uint8)
        options = {"path": str(onnx), "labels": str(path)}
        expected = scores(out / f"{classes}", {"device": "cpu"}, pixels)
        found = scores("onnx", options, pixels)
        assert found.shape == (batch, classes)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        tagger = create_tagger("onnx", options)
        assert (list(tagger.classes), tagger.thresholds) == (names, None)


def test_new_classes_score_as_in_a_relabelled_model(exported, tmp_path):
    check_new_classes(exported / "model", exported / "open.onnx", tmp_path)


def test_weights_beside_the_file_take_new_classes_too(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "INSIDE", 0)
    export.export(store.load(exported / "model"), tmp_path / "large.onnx", open_set=True)
    assert (tmp_path / "large.onnx.data").exists()
    check_new_classes(exported / "model", tmp_path / "large.onnx", tmp_path)


def test_without_labels_it_is_the_model_itself(exported):
    tagger = create_tagger(exported / "open.onnx", {})
    assert (tuple(tagger.classes), tuple(tagger.thresholds)) == (OLD, (0.5,) * 4)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = scores(exported / "model", {"device": "cpu"}, pixels)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scores(exported / "open.onnx", {}, pixels), expected, rtol=0, atol=1e-5)


def test_other_labels_are_another_model(exported, tmp_path):
    files = [write_labels(tmp_path / f"{seed}.safetensors", ["one", "two"], seed=seed) for seed in (1, 2)]
    files += [write_labels(tmp_path / "names.safetensors", ["one", "three"], seed=1)]
    prints = [
        create_tagger("onnx", {"path": str(exported / "open.onnx"), "labels": file}).fingerprint()
        for file in (None, *map(str, files))
    ]
    assert len(set(prints)) == 4
    assert create_tagger(exported / "open.onnx", {}).fingerprint() == prints[0]


def test_predict_takes_labels_and_no_torch(exported, tmp_path):
    path = write_labels(tmp_path / "new.safetensors", ["one", "two"])
    image = tmp_path / "image.png"
    code = (
        "import sys, numpy, PIL.Image\n"
        "PIL.Image.new('RGB', (30, 20), 'red').save(sys.argv[3])\n"
        "sys.modules['torch'] = None\n"
        "from tagmill.runners.cli import main\n"
        "model, labels, image = sys.argv[1:]\n"
        "sys.argv[1:] = ['predict', image, '--model', model, '--option', 'labels=' + labels]\n"
        "sys.argv += ['--threshold', '0', '--json']\n"
        "main()"
    )
    command = [sys.executable, "-P", "-c", code, *map(str, (exported / "open.onnx", path, image))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert {tag["tag"] for tag in json.loads(done.stdout)["tags"]} == {"one", "two"}


def refused(path, labels):
    with pytest.raises(ConfigError) as error:
        create_tagger("onnx", {"path": str(path), "labels": str(labels)})
    (line,) = str(error.value).splitlines()
    return line


def test_labels_that_do_not_fit_are_refused_in_a_line(exported, tmp_path):
    wide = write_labels(tmp_path / "wide.safetensors", ["one"], width=24)
    assert "the labels have 24 dimensions" in refused(exported / "open.onnx", wide)
    other = write_labels(tmp_path / "other.safetensors", ["sky", "new", "red", "dog", "cat"], seed=9)
    assert "of another CLIP than" in refused(exported / "open.onnx", other)
    kind = store.load(exported / "model").config.kind
    if kind == "ram":
        two = write_labels(tmp_path / "two.safetensors", ["one"], 2)
        assert "one embedding a class, not 2" in refused(exported / "open.onnx", two)
    same = tmp_path / "same.safetensors"
    own = store.load(exported / "model").label_embed
    labels.save(labels.Labels(OLD, own, "d" * 64, "v" * 64), same)
    assert (
        tuple(create_tagger("onnx", {"path": str(exported / "open.onnx"), "labels": str(same)}).classes)
        == OLD
    )
    assert "is not a file of `tagmill vocab embed`" in refused(exported / "open.onnx", tmp_path / "none")
    closed = tmp_path / "closed.onnx"
    export.export(store.load(exported / "model"), closed)
    assert "takes no labels: write it with `tagmill models export --open-set`" in refused(closed, same)


def test_only_onnx_files_of_ram_are_open(golden, tmp_path):
    with pytest.raises(ConfigError, match="--open-set makes ONNX files"):
        export.export(small("ram"), tmp_path / "m.pt2", open_set=True)
    with pytest.raises(ConfigError, match="Tag2Text learns its classes"):
        export.export(golden.tag2text(), tmp_path / "t.onnx", open_set=True)
    assert not list(tmp_path.iterdir())
