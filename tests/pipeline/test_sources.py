import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sources import encode, square_image, write_config, write_squares
from tagmill.pipeline.config import RunConfig, load_config
from tagmill.pipeline.sources import find_sources
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError


def config_over(folder: Path, *inputs: dict[str, Any]) -> RunConfig:
    given = {"inputs": [{"format": "webdataset", **one} for one in inputs]} if inputs else {}
    return load_config(str(write_config(folder, **given)))


def test_sources_come_in_the_order_of_inputs_and_then_of_paths(tmp_path):
    for name in ("x/b.tar", "x/a.tar", "x/c/a.tar", "y/0.tar"):
        write_squares(tmp_path / name, 1)
    config = config_over(
        tmp_path,
        {"name": "x", "path": f"{tmp_path}/x/**/*.tar"},
        {"name": "y", "path": f"{tmp_path}/y/0.tar"},
    )
    found = [(source.config.name, source.path) for source in find_sources(config.inputs).values()]
    assert found == [("x", "a.tar"), ("x", "b.tar"), ("x", "c/a.tar"), ("y", "0.tar")]


def test_a_pattern_that_matches_nothing_is_an_error_that_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        ConfigError, match=rf"input squares: no file matches .*working directory: {Path.cwd()}"
    ):
        find_sources(config_over(tmp_path).inputs)


def test_a_folder_that_matches_is_no_source(tmp_path):
    (tmp_path / "data" / "folder.tar").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no file matches"):
        find_sources(config_over(tmp_path).inputs)


def test_a_link_to_nothing_is_an_error_and_not_passed_over(tmp_path):
    write_squares(tmp_path / "data" / "a.tar", 1)
    (tmp_path / "data" / "b.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"input squares: .*b\.tar is missing, or a link to nothing"):
        find_sources(config_over(tmp_path).inputs)


def test_a_link_to_itself_is_an_error(tmp_path):
    write_squares(tmp_path / "data" / "a.tar", 1)
    (tmp_path / "data" / "b.tar").symlink_to("b.tar")
    with pytest.raises(ConfigError, match=r"input squares: cannot read .*b\.tar: Too many levels"):
        find_sources(config_over(tmp_path).inputs)


def test_a_missing_image_folder_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    path, images = str(tmp_path / "a.jsonl"), str(tmp_path / "pictures")
    config = config_over(tmp_path, {"name": "a", "format": "jsonl", "path": path, "images": images})
    with pytest.raises(ConfigError, match=r"input a: no image folder .*pictures"):
        find_sources(config.inputs)


def test_images_of_json_lines_lie_beside_their_file_unless_the_input_says_otherwise(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(encode(square_image(["red"])))
        (tmp_path / folder / "a.jsonl").write_text('{"image": "a.png"}\n')
    path = f"{tmp_path}/*/a.jsonl"
    beside = find_sources(config_over(tmp_path, {"name": "a", "format": "jsonl", "path": path}).inputs)
    assert [source.images for source in beside.values()] == [str(tmp_path / "one"), str(tmp_path / "two")]
    given = {"name": "a", "format": "jsonl", "path": path, "images": str(tmp_path / "one")}
    elsewhere = find_sources(config_over(tmp_path, given).inputs)
    assert {source.images for source in elsewhere.values()} == {str(tmp_path / "one")}


def test_the_folders_in_a_folder_of_images_are_its_sources(tmp_path, monkeypatch):
    for name in ("mine/b.png", "mine/2024/a.png", "mine/2024/trip/a.png", "mine/texts/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(square_image(["red"])))
    monkeypatch.chdir(tmp_path)
    names = []
    for path in ("mine", "mine/", "./mine", f"{tmp_path}/mine"):
        found = find_sources(config_over(tmp_path, {"name": "m", "format": "folder", "path": path}).inputs)
        assert [source.path for source in found.values()] == [".", "2024", "2024/trip"]
        assert {source.images for source in found.values()} == {str(tmp_path / "mine")}
        names.append(list(found))
    assert all(found == names[0] for found in names)


def test_names_do_not_depend_on_where_the_data_lies_or_how_that_is_written(tmp_path, monkeypatch):
    write_squares(tmp_path / "here" / "data" / "a.tar", 1)
    write_squares(tmp_path / "here" / "data" / "deep" / "b.tar", 1)
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "far")
    monkeypatch.chdir(tmp_path)
    patterns = [
        f"{tmp_path}/here/data/**/*.tar",
        f"{tmp_path}/there/far/data/**/*.tar",
        "here/data/**/*.tar",
        "./here/data/**/*.tar",
        f"file://{tmp_path}/here/data/**/*.tar",
    ]
    names = [list(find_sources(config_over(tmp_path, {"name": "a", "path": p}).inputs)) for p in patterns]
    assert all(found == names[0] for found in names)
    assert len(names[0]) == 2


@pytest.mark.parametrize("pattern", ["memory://far/*.tar", "memory:///far/*.tar", "memory://far/a.tar"])
def test_files_of_an_object_store_lie_under_their_root(tmp_path, pattern):
    files.replace_bytes("memory://far/a.tar", b"")
    (found,) = find_sources(config_over(tmp_path, {"name": "a", "path": pattern}).inputs).values()
    assert (found.path, found.uri) == ("a.tar", "memory:///far/a.tar")


def test_a_folder_in_the_place_of_files_is_an_error_that_says_what_to_write(tmp_path):
    with pytest.raises(ConfigError, match=rf"is a folder; name its files: {tmp_path}/\*\.tar"):
        find_sources(config_over(tmp_path, {"name": "a", "path": str(tmp_path)}).inputs)


def test_one_file_may_belong_to_two_inputs_under_two_names(tmp_path):
    write_squares(tmp_path / "a.tar", 1)
    config = config_over(
        tmp_path, *({"name": name, "path": str(tmp_path / "a.tar")} for name in ("one", "two"))
    )
    assert len(find_sources(config.inputs)) == 2


def test_a_rewritten_file_has_another_stamp(tmp_path):
    tar = write_squares(tmp_path / "data" / "a.tar", 1)
    config = config_over(tmp_path)
    (before,) = find_sources(config.inputs).values()
    os.utime(tar, (1, 1))
    (after,) = find_sources(config.inputs).values()
    assert before.name == after.name
    assert before.size == after.size
    assert before.stamp != after.stamp
