"""Models of an object store: copied once, anew when they change, and named as any other."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from predicting import predict
from slow_store import counted
from sources import square_image
from tagmill.models import base
from tagmill.models.local_copies import CACHE, local_copy
from tagmill.runners.commands.demo import embedded
from tagmill.tag_system.core.errors import ConfigError

IMAGES = [np.asarray(square_image([colour])) for colour in ("red", "blue")]


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Path:
    """A folder that is shown as a store, with the demo's models and files that no model needs."""
    monkeypatch.setenv(CACHE, str(tmp_path / "copies"))
    shelf = tmp_path / "shelf"
    for name in ("tagger", "clip"):
        shutil.copytree(embedded() / name, shelf / name)
    (shelf / "tagger" / "training.log").write_bytes(bytes(1 << 20))
    (shelf / "tagger" / "old").mkdir()
    (shelf / "tagger" / "old" / "model.safetensors").write_bytes(bytes(1 << 20))
    return shelf


def test_a_model_of_a_store_is_copied_once_and_is_the_same(shelf):
    here, there = ({"path": f"{scheme}{shelf}/tagger", "device": "cpu"} for scheme in ("", "slow://"))
    with counted() as requests:
        with ThreadPoolExecutor(4) as pool:  # as many workers do that begin together
            _, far = pool.map(lambda _: base.create_tagger("ram", there), range(2))
        read = {Path(path).name for kind, path in requests if kind == "read"}
        assert read == {path.name for path in (shelf / "tagger").glob("*.*") if path.suffix != ".log"}
        assert len([1 for kind, _ in requests if kind == "read"]) == len(read)
        requests.clear()
        near = base.create_tagger("ram", here)
        assert base.create_tagger(f"slow://{shelf}/tagger", {}).fingerprint() == near.fingerprint()
        assert "read" not in {kind for kind, _ in requests}
    near.load(), far.load()
    assert np.array_equal(predict(near, IMAGES), predict(far, IMAGES))


def test_a_url_may_stand_in_the_environment(shelf, monkeypatch):
    monkeypatch.setenv("WEIGHTS", f"slow://{shelf}/tagger")
    far = base.create_tagger("ram", {"path": "${ENV:WEIGHTS}", "device": "cpu"})
    assert far.fingerprint() == base.create_tagger(f"{shelf}/tagger", {}).fingerprint()


def test_a_model_that_was_written_anew_is_copied_anew(shelf):
    place = f"slow://{shelf}/tagger"
    before = base.create_tagger(place, {}).fingerprint()
    config = shelf / "tagger" / "config.json"
    config.write_text(config.read_text() + "\n")
    os.utime(config, (1, 1))
    assert base.create_tagger(place, {}).fingerprint() != before


def test_models_within_options_and_single_files_are_copied_too(shelf, tmp_path):
    clip = base.create("open-clip", {"model": f"local-dir:slow://{shelf}/clip", "device": "cpu"})
    near = base.create("open-clip", {"model": f"local-dir:{shelf}/clip", "device": "cpu"})
    assert clip.fingerprint() == near.fingerprint()
    for name in ("large.onnx", "large.onnx.data", "names.txt"):
        (shelf / name).write_text(name)
    assert Path(local_copy(f"slow://{shelf}/names.txt")).read_text() == "names.txt"
    large = Path(local_copy(f"slow://{shelf}/large.onnx"))
    assert [path.read_text() for path in sorted(large.parent.iterdir())] == ["large.onnx", "large.onnx.data"]
    dino = tiny_models.grounding_dino(shelf / "dino")
    far = base.create("grounding-dino", {"path": f"slow://{dino}", "device": "cpu"})
    assert far.fingerprint() == base.create("grounding-dino", {"path": str(dino)}).fingerprint()


def test_what_is_not_there_and_where_nothing_can_be_written_is_a_line(shelf, tmp_path, monkeypatch):
    with pytest.raises(
        ConfigError, match=r"^there is no model slow://.*/nowhere: name a folder that has one"
    ):
        base.create_tagger(f"slow://{shelf}/nowhere", {})
    with pytest.raises(ConfigError, match=r"/old has no config.json$"):
        base.create("ram", {"path": f"slow://{shelf}/tagger/old"})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE, str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=f"set {CACHE} to a folder that takes the models"):
        base.create_tagger(f"slow://{shelf}/tagger", {})
