import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import members
from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats.base import InputConfig, Limits, Source
from tagmill.transforms.formats.jsonl import JsonLines
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.formats.text_lines import bounded_lines

CONFIG = InputConfig(name="x", format="jsonl", path="unused")
PNG = members("k", 0)["k.png"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "photos/b.c.png", "schön.png"):
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


@pytest.fixture
def read(folder):
    def read(*lines, limit=1 << 20, load=True, end=b"\n"):
        data = b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + end
        stream = HashingStream(io.BytesIO(data))
        source = Source(str(folder), "s.jsonl", str(folder))
        found = []
        for item in JsonLines().read(stream, source, CONFIG, Limits(limit)):
            try:
                found.append((item.key, item.load() if load else None))
            except DataError as error:
                found.append((item.key, error.reason))
        return found

    return read


def test_an_example_a_line(read):
    found = read(
        {"image": "a.png", "caption": "one", "x": 1}, {"image": "photos/b.c.png", "captions": ["1", "2"]}
    )
    (first, a), (second, b) = found
    assert (first, second) == ("a", "photos/b.c")
    assert a.image == {"kind": "file", "uri": "a.png", "offset": 0, "size": len(PNG)}
    assert a.data == PNG
    assert (a.captions, b.captions) == (["one"], ["1", "2"])
    assert a.fields == {"caption": "one", "x": 1}


@pytest.mark.parametrize(
    ("key", "expected"),
    [(None, "a"), ("", "a"), ("own/key", "own/key"), (17, "17"), (0, "0")],
    ids=["null", "empty", "text", "number", "zero"],
)
def test_the_key_is_the_key_field_or_the_path(read, key, expected):
    assert read({"image": "a.png", "key": key})[0][0] == expected


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff",
        {},
        {"image": None},
        {"image": ""},
        {"image": 3},
        {"image": "/etc/passwd"},
        {"image": "../a.png"},
        {"image": "photos/../../a.png"},
        {"image": "http://example.org/a.png"},
        {"image": "."},
        {"image": "a\0.png"},
        {"image": "\ud800.png"},
        {"image": "x" * 300},
        {"image": "y/" + "x" * 300 + "/z"},
        b'{"image": "a.png", "x": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    ],
    ids=lambda line: ascii(line)[:40],
)
def test_a_bad_line_is_dead_and_the_next_lives(read, line):
    found = read(line, {"image": "a.png"})
    assert found[0] == ("s.jsonl#1", Reason.RECORD_INVALID)
    assert found[1][1].data == PNG


@pytest.mark.parametrize(
    "path", ["nowhere.png", "photos", "a.png/x.png", "nowhere/a.png", " ", "a/" * 3000 + "x"]
)
def test_a_missing_image_is_dead_and_the_next_lives(read, path):
    found = read({"image": path}, {"image": "a.png"})
    assert found[0][1] is Reason.IMAGE_MISSING
    assert found[1][1].data == PNG


def test_an_image_over_the_cap_is_dead(read):
    assert read({"image": "a.png"}, limit=len(PNG) - 1)[0] == ("a", Reason.MEMBER_TOO_LARGE)
    assert read({"image": "a.png"}, limit=len(PNG))[0][1].data == PNG


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \n"], ids=repr)
def test_the_file_may_end_as_it_likes(read, end):
    assert [key for key, _ in read({"image": "a.png"}, {"image": "schön.png"}, end=end)] == ["a", "schön"]


def test_blank_lines_count_in_the_numbering_and_nowhere_else(read):
    assert [key for key, _ in read(b"", b"  ", b"{", b"", b"]")] == ["s.jsonl#3", "s.jsonl#5"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(read):
    assert read(b'\xef\xbb\xbf{"image": "a.png"}')[0][1].data == PNG


def test_an_empty_file_has_no_examples(read):
    assert read(end=b"") == []


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 9),
    st.booleans(),
)
def test_lines_over_the_cap_are_told_and_never_held_whole(sizes, limit, chunk, ended):
    class Slow(io.BytesIO):
        """Gives a few bytes at a time, as networks do."""

        def read(self, size=-1):
            return super().read(min(size, chunk) if size >= 0 else chunk)

    lines = [b"x" * size for size in sizes]
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    stream = HashingStream(Slow(data))
    if not ended and lines and not lines[-1]:
        lines.pop()  # nothing follows the last line end
    found = list(bounded_lines(stream, limit))
    assert found == [line if len(line) <= limit else None for line in lines]
