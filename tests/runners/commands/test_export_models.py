"""`tagmill models export` of what becomes a folder; for files see tests/models/ram/test_export.py."""

import json

import pytest

import tiny_models
from commands import tagmill
from tagmill.models.base import create
from tagmill.runners.commands.demo import embedded
from tagmill.tag_system.core import files

pytest.importorskip("onnxscript")

RECORD = embedded() / "record.json"


@pytest.mark.parametrize(
    ("make", "model"),
    [(tiny_models.open_clip, "onnx-clip"), (tiny_models.grounding_dino, "onnx-grounding-dino")],
)
def test_a_model_becomes_a_folder_that_its_message_says_how_to_use(tmp_path, make, model):
    folder = make(tmp_path / "model")
    out, err = tagmill("models", "export", folder, tmp_path / "made")
    assert "differ by at most" in out
    assert f"the model {model}, with the option path" in out
    assert not err
    create(model, {"path": str(tmp_path / "made")}).load()
    for name, said in (
        ("made", "exists already: name a new folder"),
        ("new.onnx", "name one without an ending"),
    ):
        _, err = tagmill("models", "export", folder, tmp_path / name, code=2)
        assert said in err


def test_the_demos_files_are_those_of_its_record():
    digests = json.loads(RECORD.read_text())["sha256"]
    there = [str(path.relative_to(embedded())) for path in embedded().rglob("*.onnx")]
    assert sorted(there) == sorted(name for name in digests if name.endswith(".onnx"))
    assert {name: files.sha256(str(embedded() / name)) for name in digests} == digests
