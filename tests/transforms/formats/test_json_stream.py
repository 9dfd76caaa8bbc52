"""JSON that is read item by item says what `json` says of the whole."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmill.tag_system.core.errors import DataError, Reason
from tagmill.transforms.formats import json_stream
from tagmill.transforms.formats.base import Limits
from tagmill.transforms.formats.json_stream import json_items

TEXTS = st.text(st.sampled_from('ab"\\[]{},: é😀\n'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def items(data, chunk=1 << 20, limit=1 << 20):
    class Slow(io.BytesIO):
        def read(self, size=-1):
            return super().read(chunk)

    return list(json_items(Slow(data), Limits(1 << 26, limit), "it"))


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_the_items_of_a_list_are_those_that_the_whole_has(values, chunk, indent, escaped):
    data = json.dumps(values, indent=indent, ensure_ascii=escaped).encode()
    assert [item.value for item in items(data, chunk)] == values
    assert [item.number for item in items(data, chunk)] == list(range(1, len(values) + 1))


@given(st.dictionaries(TEXTS, VALUES, max_size=4), st.integers(1, 9))
def test_the_lists_of_an_object_are_given_by_name_and_all_else_is_passed_over(values, chunk):
    found: dict = {}
    for item in items(json.dumps(values, ensure_ascii=False).encode(), chunk):
        found.setdefault(item.name, []).append(item.value)
    assert found == {name: value for name, value in values.items() if isinstance(value, list) and value}


@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_a_file_that_is_cut_gives_what_comes_before_and_says_so(values, data):
    whole = json.dumps(values).encode()
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    found = []
    with pytest.raises(DataError) as caught:
        found.extend(json_items(io.BytesIO(cut), Limits(1 << 20), "it"))
    assert caught.value.reason is Reason.SOURCE_TRUNCATED


DEEP = b"[" * 20_000 + b"]" * 20_000


@pytest.mark.parametrize(
    "bad",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": nope}',
        b"nope",
        b'"a\nb"',
        DEEP,
        b'{"a" 1}',
        b"9" * 5_000,
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_item_that_is_no_json_is_told_and_the_next_is_read(bad):
    first, wrong, last = items(b"[1, " + bad + b', {"b": 2}]', 7 if len(bad) < 99 else 2_000)
    assert (first.value, last.value) == (1, {"b": 2})
    assert wrong.value.reason is Reason.RECORD_INVALID
    assert "it: item 2" in wrong.value.detail


@pytest.mark.parametrize("large", [b'{"a": "\\"' + b"x" * 5_000 + b'"}', b"[" + b"[1]," * 2_000 + b"0]"])
def test_an_item_that_is_too_large_is_told_and_never_held(large, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 64)
    first, wrong, last = items(b"[1, " + large + b", 2]", 64, limit=1_000)
    assert (first.value, last.value) == (1, 2)
    assert wrong.value.reason is Reason.RECORD_TOO_LARGE


def test_bytes_that_are_no_utf8_spoil_one_text_and_not_the_file():
    (item,) = items(b'[{"a": "caf\xe9"}]')
    assert item.value == {"a": "caf\udce9"}


@pytest.mark.parametrize("data", [b"3", b"[1] 2", b"{} {}", b"[1,,2]", b"[1 2]", b'{"a": }', b"{3: 4}", b"]"])
def test_what_is_no_json_is_told_once(data):
    with pytest.raises(DataError):
        items(data)


def test_an_empty_file_has_no_items():
    assert items(b"") == items(b" \n") == items(b"[]") == items(b"{}") == []
