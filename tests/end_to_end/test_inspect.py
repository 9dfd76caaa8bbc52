"""The command that answers why one image has its tags."""

from pathlib import Path

import pytest
from PIL import Image

from commands import call

pytestmark = pytest.mark.package


def test_an_image_is_explained_and_drawn(squares_run: Path, tmp_path: Path):
    out, _ = call("inspect", squares_run, "squares/000001", "--output", tmp_path / "one.png")
    assert "yellow" in out
    with Image.open(tmp_path / "one.png") as image:
        assert image.format == "PNG"


def test_bad_usage_is_one_line(squares_run: Path, tmp_path: Path):
    _, err = call("inspect", squares_run, "000001", code=2)
    assert "the nearest keys: squares/000001" in err
    assert len(err.splitlines()) == 1
    _, err = call("inspect", tmp_path, "squares/000001", code=2)
    assert "is not a run folder" in err
