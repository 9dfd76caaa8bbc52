"""The forms that the path of an input may take."""

import os

import pytest

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms.formats.base import InputConfig, format_of


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Make empty files, and find those that a path matches: their root and their names under it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def find(names, path):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        at = [
            f"{tmp_path}/{one}" if one[0] not in "~/m" else one
            for one in (path if isinstance(path, list) else [path])
        ]
        config = InputConfig(name="x", format="webdataset", path=at if isinstance(path, list) else at[0])
        root, found = format_of(config).find_sources(config)
        return os.path.relpath(root, tmp_path) if files.is_local(root) else root, found

    return find


@pytest.mark.parametrize(
    ("names", "path", "root", "found"),
    [
        (["d/00.tar", "d/01.tar", "d/02.tar"], "d/{00..01}.tar", "d", ["00.tar", "01.tar"]),
        (["a/1.tar", "b/1.tar", "b/2.tar"], "{b,a}/*.tar", ".", ["b/1.tar", "b/2.tar", "a/1.tar"]),
        (["a/1.tar", "b/c/1.tar"], ["b/c/1.tar", "a/*.tar", "a/1.tar"], ".", ["b/c/1.tar", "a/1.tar"]),
        (["set [1]/a.tar", "set 1/a.tar"], "set [1]/a.tar", "set [1]", ["a.tar"]),
        (["{a,b}.tar", "a.tar"], "{a,b}.tar", ".", ["{a,b}.tar"]),
        (["home/d/a.tar"], "~/d/*.tar", "home/d", ["a.tar"]),
    ],
    ids=["numbers", "words", "list", "brackets in a name", "braces in a name", "home"],
)
def test_a_path_may_be(find, names, path, root, found):
    assert find(names, path) == (root, found)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("d/{00..02}.tar", "no file matches .*d/02.tar"),
        (["d/00.tar", "e/*.tar"], "no file matches .*e/"),
        ("d/{000000..900000}.tar", "more than 100000 files"),
        (["d/00.tar", "memory://paths/a.tar"], "share no folder; make an input of each"),
    ],
    ids=["a missing one", "an empty pattern", "too many", "two stores"],
)
def test_a_path_that_does_not_name_its_files_is_refused(find, path, words):
    files.replace_bytes("memory://paths/a.tar", b"")
    with pytest.raises(ConfigError, match=words):
        find(["d/00.tar", "d/01.tar"], path)


def test_a_folder_is_one_path(tmp_path):
    config = InputConfig(name="x", format="folder", path=[str(tmp_path), "b"])
    with pytest.raises(ConfigError, match="a folder takes one path; make an input of each of"):
        format_of(config).find_sources(config)
