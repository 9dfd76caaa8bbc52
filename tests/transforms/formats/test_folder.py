import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import members
from tagmill.tag_system.core.errors import ConfigError, DataError, InputChangedError, Reason
from tagmill.transforms.formats import folder
from tagmill.transforms.formats.base import InputConfig, Limits, Source
from tagmill.transforms.formats.folder import Folder
from tagmill.transforms.formats.streams import HashingStream, PieceStream

FORMAT = Folder()
PNG = members("k", 0)["k.png"]
OTHER = members("k", 1)["k.png"]


@pytest.fixture
def photos(tmp_path):
    """Write files below a folder `photos`, given as path -> bytes, and return the folder."""

    def photos(contents):
        for path, data in contents.items():
            target = tmp_path / "photos" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return tmp_path / "photos"

    return photos


def config(path: Path, **changes: Any) -> InputConfig:
    return InputConfig(name="x", format="folder", path=str(path), **changes)


def walk(root: Path, path: str = ".", *, limit: int = 1 << 20, load: bool = True, links: str = "within"):
    """Read one folder: for each example its key, and its record or the reason why there is none."""
    source = Source(str(root), path, str(root))
    found = []
    with FORMAT.open_read(source.uri) as raw:
        for item in FORMAT.read(HashingStream(raw), source, config(root, links=links), Limits(limit)):
            try:
                found.append((item.key, item.load() if load else None))
            except DataError as error:
                found.append((item.key, error.reason))
    return found


def digest(root: Path) -> str:
    with FORMAT.open_read(str(root)) as raw:
        return HashingStream(raw).finish()


def test_each_image_is_an_example_and_the_lines_beside_it_its_captions(photos):
    root = photos(
        {"b.png": PNG, "a.jpg": OTHER, "a.txt": b"\xef\xbb\xbfa dog\n\n a cat \r\n", "notes.txt": b"no"}
    )
    (first, a), (second, b) = walk(root)
    assert (first, second) == ("a", "b")
    assert a.image == {"kind": "file", "uri": "a.jpg", "offset": 0, "size": len(OTHER)}
    assert (a.data, b.data) == (OTHER, PNG)
    assert (a.captions, b.captions) == (["a dog", " a cat "], [])


def test_separators_within_a_caption_do_not_split_it(photos):
    caption = "a dog\u2028on\u2029a\x85red\x0b\x0c\x1c\x1d\x1e mat"
    root = photos({"a.png": PNG, "a.txt": f"{caption}\r\na cat\ra bird\n".encode()})
    ((_, record),) = walk(root)
    assert record.captions == [caption, "a cat", "a bird"]


def test_every_folder_with_images_is_a_source_of_its_own_in_a_fixed_order(photos):
    names = [
        "b.png",
        "z/1.webp",
        "a/b/1.jpeg",
        "a/c.PNG",
        "a.b/1.png",
        "texts/1.txt",
        ".hidden/1.png",
        "a/.x.png",
    ]
    root = photos(dict.fromkeys(names, PNG))
    assert FORMAT.find_sources(config(root))[1] == [".", "a", "a/b", "a.b", "z"]
    assert [key for path in (".", "a", "a/b") for key, _ in walk(root, path)] == ["b", "a/c", "a/b/1"]
    ((_, record),) = walk(root, "a/b")
    assert record.image["uri"] == "a/b/1.jpeg"


def test_images_that_differ_in_their_extension_alone_keep_it_in_the_key(photos):
    root = photos({"a.png": PNG, "a.jpg": OTHER, "a.txt": b"both", "a.b.png": PNG})
    found = walk(root)
    assert [key for key, _ in found] == ["a.b", "a.jpg", "a.png"]
    assert [record.captions for _, record in found] == [[], ["both"], ["both"]]


@pytest.mark.parametrize("name", ["a.txt", "a.TXT", "a.png.txt"])
def test_a_text_is_found_however_it_is_named(photos, name):
    ((_, record),) = walk(photos({"a.png": PNG, name: b"a dog"}))
    assert record.captions == ["a dog"]


def test_an_empty_or_undecodable_text_is_left_for_ingest_to_refuse(photos):
    root = photos({"a.png": PNG, "a.txt": b" \n", "b.png": PNG, "b.txt": b"\xff\xfe"})
    assert [record.captions for _, record in walk(root)] == [[" \n"], [b"\xff\xfe"]]


@pytest.mark.parametrize("large", ["a.png", "a.txt"])
def test_what_is_over_the_cap_is_dead_and_the_next_lives(photos, large):
    contents = {"a.png": PNG, "a.txt": b"a dog", "b.png": PNG}
    root = photos(contents | {large: b"x" * (len(PNG) + 1)})
    found = walk(root, limit=len(PNG))
    assert found[0] == ("a", Reason.MEMBER_TOO_LARGE)
    assert found[1][1].data == PNG


def test_an_image_that_may_not_be_read_is_dead_and_the_next_lives(photos, monkeypatch):
    root = photos({"a.png": PNG, "b.png": PNG})
    whole = folder.files.opened

    def refuse(uri):
        if uri.endswith("a.png"):
            raise PermissionError(13, "Permission denied")
        return whole(uri)

    monkeypatch.setattr(folder.files, "opened", refuse)
    found = walk(root)
    assert found[0] == ("a", Reason.IMAGE_MISSING)
    assert found[1][1].data == PNG


def test_links_to_files_count_and_links_to_folders_are_not_entered(photos, tmp_path):
    root = photos({"a/1.png": PNG})
    (tmp_path / "2.png").write_bytes(OTHER)
    (root / "a" / "2.png").symlink_to(tmp_path / "2.png")
    (root / "a" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (root / "a" / "loop").symlink_to(root)
    assert FORMAT.find_sources(config(root))[1] == ["a"]
    (first, one), (second, two), lost = walk(root, "a", links="follow")
    assert walk(root, "a")[1] == ("a/2", Reason.LINK_REFUSED)
    assert (first, one.data, second, two.data) == ("a/1", PNG, "a/2", OTHER)
    assert lost == ("a/lost", Reason.IMAGE_MISSING)


def test_a_touched_file_changes_the_stamp_and_not_the_digest(photos):
    root = photos({"a.png": PNG, "a.txt": b"a dog"})
    before = FORMAT.size_and_stamp(str(root)), digest(root)
    os.utime(root / "a.txt", (1, 1))
    after = FORMAT.size_and_stamp(str(root)), digest(root)
    assert before[0][0] == after[0][0] == len(PNG) + 5
    assert before[0][1] != after[0][1]
    assert before[1] == after[1]
    (root / "a.txt").write_bytes(b"a cat")
    assert digest(root) != before[1]


def test_the_digest_is_the_same_whether_examples_were_loaded_or_passed_over(photos):
    root = photos({"a.png": PNG, "a.txt": b"a dog", "b.png": OTHER})
    digests = set()
    for load in (True, False):
        with FORMAT.open_read(str(root)) as raw:
            stream = HashingStream(raw)
            for item in FORMAT.read(stream, Source(str(root), ".", str(root)), config(root), Limits(1 << 20)):
                if load:
                    item.load()
            digests.add(stream.finish())
    assert digests == {digest(root)}


@pytest.mark.parametrize("data", [b"", PNG + b"x"], ids=["shorter", "longer"])
def test_a_file_that_changes_while_it_is_read_stops_the_run(photos, data):
    root = photos({"a.png": PNG, "b.png": PNG})
    with FORMAT.open_read(str(root)) as raw:
        stream = HashingStream(raw)
        source = Source(str(root), ".", str(root))
        examples = FORMAT.read(stream, source, config(root), Limits(1 << 20))
        next(examples).load()
        (root / "b.png").write_bytes(data)
        with pytest.raises(InputChangedError, match=r"b\.png changed while"):
            list(examples)


@pytest.mark.parametrize(
    ("contents", "path", "said"),
    [
        ({"a.txt": b"x"}, "", "no image in"),
        ({"a.png": PNG}, "nowhere", "nowhere is not a folder"),
        ({"a.png": PNG}, "a.png", "is not a folder"),
        ({"a\nb/a.png": PNG}, "", "rename the folder"),
    ],
    ids=["no image", "missing", "a file", "name"],
)
def test_a_folder_that_cannot_be_an_input_says_why(photos, contents, path, said):
    with pytest.raises(ConfigError, match=said):
        FORMAT.find_sources(config(photos(contents) / path))


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_passed_over(photos, monkeypatch):
    root = photos({"a.png": PNG})

    def refuse(root):
        raise PermissionError(13, "Permission denied", "photos/private")

    monkeypatch.setattr(folder, "find_folders", refuse)
    with pytest.raises(ConfigError, match="cannot list photos/private"):
        FORMAT.find_sources(config(root))


@given(st.lists(st.binary(max_size=9), max_size=6), st.integers(1, 12))
def test_pieces_are_read_as_one_file_whatever_their_lengths(pieces, size):
    stream = io.BufferedReader(PieceStream(iter(pieces)), size)
    assert b"".join(iter(lambda: stream.read(size), b"")) == b"".join(pieces)
