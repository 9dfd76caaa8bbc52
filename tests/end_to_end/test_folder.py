"""A folder of images as it grows: the engine runs on it, and makes again what changed."""

from pathlib import Path

import pytest

from runs import current_folder, drive, parts_there, samples
from sources import encode, square_image, write_config
from tagmill.tag_system.core.errors import InputChangedError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    for name, squares in {"one/a.png": ["red", "blue"], "one/b.png": ["green"], "two/a.png": ["red"]}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(square_image(squares, len(name))))
    (tmp_path / "photos" / "one" / "a.txt").write_text("a red square\na green square\n")
    inputs = [{"name": "mine", "format": "folder", "path": str(tmp_path / "photos")}]
    return write_config(tmp_path, inputs=inputs)


def kept(run: Path) -> dict[str, set[str]]:
    return {
        sample["key"]: {tag["tag"] for tag in sample["tags"] if tag["verdict"] == "kept"}
        for sample in samples(run)
    }


def test_images_get_tags_with_and_without_captions(tmp_path: Path, config: Path):
    drive(config)
    assert kept(tmp_path / "run") == {
        "mine/one/a": {"red", "blue"},
        "mine/one/b": {"green"},
        "mine/two/a": {"red"},
    }
    assert drive(config).jobs == []


def test_a_new_image_makes_its_own_folder_again_once_that_is_accepted(tmp_path: Path, config: Path):
    drive(config)
    run = tmp_path / "run"
    before = parts_there(run, "tag")
    (tmp_path / "photos" / "two" / "b.png").write_bytes(encode(square_image(["yellow"])))
    with pytest.raises(InputChangedError, match=r"photos/two changed since .*--accept-changes"):
        drive(config)
    drive(config, accept_changes=True)
    assert kept(run)["mine/two/b"] == {"yellow"}
    after = parts_there(run, "tag")
    current = current_folder(run, "tag").name
    same = [name for name in before if name.startswith(current) and after.get(name) == before[name]]
    assert len(same) == 1
