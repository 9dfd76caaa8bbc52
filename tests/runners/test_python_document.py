"""The code of docs/python.md runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest
from PIL import Image

import tagmill

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"
TAGGER = Path(__file__).parents[2] / "models" / "demo" / "data" / "tagger"

pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not beside the tests")


def write_photos(folder: Path) -> None:
    folder.mkdir()
    for place, name in enumerate(["dog", "cat", "car", "tree", "house", "boat"]):
        Image.effect_noise((96, 80), 40 + place).convert("RGB").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a photo of a {name}\n")


def test_every_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ram").symlink_to(TAGGER)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    exec(compile("\n".join(blocks), str(DOCUMENT), "exec"), {})
    said = capsys.readouterr().out
    assert "ingest: make 1 of 1 sources" in said
    assert re.search(r"^photos/dog \['dog'.*\] \['a photo of a dog'\]$", said, re.MULTILINE)
    assert "dog kept not_localized" in said
    assert "[('dog', 'dogs')" in said


def test_every_name_is_explained():
    rows = re.findall(r"^\| (`.*?) \| .+ \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(name.strip("`") for row in rows for name in row.split(", ")) == sorted(tagmill.__all__)
