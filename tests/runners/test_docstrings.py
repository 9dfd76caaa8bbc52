"""The examples in the docstrings of the public names hold, beside two photos and a run of them."""

import doctest
import importlib
import tarfile
from pathlib import Path

import pytest

import tagmill
from tagmill.runners.commands.demo import embedded

NAMES = [name for name in tagmill.__all__ if not name.startswith("_")]

PHOTOS = {"200001": "beach", "200000": "ocean"}
"""What the demo's scenes are called here."""

pytestmark = pytest.mark.skipif(not any(embedded().glob("tagger")), reason="the demo's models are not here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with photos, a checkpoint and a finished run."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "photos").mkdir()
    with tarfile.open(embedded() / "scenes-000000.tar") as scenes:
        for key, name in PHOTOS.items():
            for end in ("jpg", "txt"):
                (folder / "photos" / f"{name}.{end}").write_bytes(scenes.extractfile(f"{key}.{end}").read())  # type: ignore[union-attr]
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "ram").symlink_to(embedded() / "tagger")
    photos = {"name": "photos", "format": "folder", "path": "photos"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tagmill.run({"run": "runs/photos", "inputs": [photos], "parse": {"mode": "fast"}}, progress="quiet")
    return folder


@pytest.mark.parametrize("name", ["tagmill", *NAMES])
def test_examples_hold(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    shown = tagmill if name == "tagmill" else getattr(tagmill, name)
    module = importlib.import_module(shown.__name__ if name == "tagmill" else shown.__module__)
    (found, *_) = doctest.DocTestFinder(recurse=False).find(shown, name, module)
    assert found.examples, f"{name} has no example"
    said: list[str] = []
    result = doctest.DocTestRunner().run(found, out=said.append)
    assert result.failed == 0, "".join(said)
