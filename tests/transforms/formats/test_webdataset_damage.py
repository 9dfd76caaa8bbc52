"""Tars that are cut, overwritten, followed by something else, or no tars at all."""

import contextlib
import gzip
import tarfile
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sources import members, write_tar
from tagmill.tag_system.core.errors import DataError, Reason
from webdatasets import PNG, walk


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.SOURCE_UNREADABLE),
        (b"short", Reason.SOURCE_UNREADABLE),
        (b"\x89PNG" * 1_000, Reason.SOURCE_UNREADABLE),
        (b"<html>" + b" " * 10_000, Reason.SOURCE_UNREADABLE),
    ],
    ids=["empty", "short", "image", "web page"],
)
def test_what_is_no_tar_is_refused_as_a_whole(tmp_path, data, reason):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DataError) as caught:
        walk(tmp_path / "a.tar")
    assert caught.value.reason is reason


def test_a_compressed_tar_is_refused_as_a_whole(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("k.png", PNG)])
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="not an uncompressed tar"):
        walk(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tar of six examples, one with a long name; its bytes, and what reading it gives."""
    folder = tmp_path_factory.mktemp("tar")
    contents = [item for i in range(5) for item in members(f"{i:03d}", i).items()]
    contents[4:4] = [
        (f"{'long' * 60}.png", PNG),
        (f"{'long' * 60}.json", b"{}"),
        (f"{'long' * 60}.txt", b"t"),
    ]
    path = write_tar(folder / "whole.tar", contents)
    return Whole((path, path.read_bytes(), walk(path)))


class Whole(tuple):
    def __repr__(self):
        return "Whole"


def borders(path):
    """Where headers and data of a tar begin and end."""
    with tarfile.open(path) as archive:
        for member in archive:
            yield member.offset
            yield member.offset_data
            yield member.offset_data + member.size
    yield archive.offset


def check_damaged(path, original, found, intact):
    """Nothing invented, nothing changed before the damage, and somebody is told what is missing."""
    live = [(key, record) for key, record in found if not isinstance(record, Reason)]
    by_key = dict(original)
    assert len({key for key, _ in found}) == len(found)
    for key, record in live:
        assert key in by_key
        assert record.data == by_key[key].data
    sure = max(0, intact - 1)  # the last one may have had more members
    assert [pair for pair in found[:sure] if pair[0] in by_key] == original[:sure]
    if live != original:
        assert any(isinstance(record, Reason) for _, record in found)


def test_a_tar_cut_at_any_border_loses_only_what_was_cut_and_says_so(whole, tmp_path):
    path, data, original = whole
    ends = [max(m + (-m % 512) for m in range_) for range_ in example_ends(path)]
    cuts = {at + shift for at in borders(path) for shift in (-1, 0, 1, 100, 511, 512)}
    for cut in sorted(c for c in cuts if 512 <= c < len(data)):
        damaged = tmp_path / "whole.tar"
        damaged.write_bytes(data[:cut])
        intact = sum(end <= cut for end in ends)
        found = walk(damaged)
        check_damaged(damaged, original, found, intact)
        if cut < ends[-1]:
            assert found[-1] == ("whole.tar#end", Reason.SOURCE_TRUNCATED)
        assert [key for key, _ in walk(damaged, load=False)] == [key for key, _ in found]


def cut_after(original, count):
    """What is read where the damage comes after so many examples."""
    last = (original[count - 1][0], Reason.SOURCE_TRUNCATED)
    return [*original[: count - 1], last, ("whole.tar#end", Reason.SOURCE_TRUNCATED)]


def example_ends(path):
    """For each example, where the data of its members ends."""
    ends = {}
    with tarfile.open(path) as archive:
        for member in archive:
            ends.setdefault(member.name.split(".")[0], []).append(member.offset_data + member.size)
    return list(ends.values())


@settings(max_examples=150)
@given(st.data())
def test_any_cut_never_crashes_and_is_reported(whole, tmp_path, data):
    path, content, original = whole
    cut = data.draw(st.integers(0, len(content) - 1))
    damaged = tmp_path / "whole.tar"
    damaged.write_bytes(content[:cut])
    ends = [max(m + (-m % 512) for m in range_) for range_ in example_ends(path)]
    try:
        found = walk(damaged)
    except DataError as error:
        assert error.reason is Reason.SOURCE_UNREADABLE  # noqa: PT017
        assert cut < 512
    else:
        check_damaged(damaged, original, found, sum(end <= cut for end in ends))


@settings(max_examples=300)
@example([(124, b"-")])
@example([(124, b"\xff")])
@example([(156, b"S")])
@example([(156, b"x")])
@example([(156, b"L")])
@given(st.lists(st.tuples(st.integers(0, 16_000), st.binary(min_size=1, max_size=12)), max_size=4))
def test_damage_anywhere_is_bad_data_and_never_a_crash(whole, tmp_path, places):
    path, content, _ = whole
    damaged = bytearray(content)
    starts = list(borders(path))
    for place, data in places:
        # Most damage goes where it hurts: into headers, with a checksum that fits again.
        header = starts[3 * (place % (len(starts) // 3))]
        at = header + place % 500
        damaged[at : at + len(data)] = data
        block = damaged[header : header + 512]
        if len(block) == 512:
            block[148:156] = b" " * 8
            damaged[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    (tmp_path / "whole.tar").write_bytes(bytes(damaged))
    with contextlib.suppress(DataError):
        walk(tmp_path / "whole.tar")


def rewritten(header, place, data):
    """A header with other bytes at a place, and a checksum that fits again."""
    block = bytearray(header)
    block[place : place + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.timeout(20)
def test_a_header_that_promises_a_yottabyte_ends_the_archive(whole, tmp_path):
    path, content, original = whole
    at = list(borders(path))[-4]  # the header of the last member
    block = rewritten(content[at : at + 512], 124, b"\x80" + b"\0" * 3 + b"\xff" * 8)
    (tmp_path / "whole.tar").write_bytes(content[:at] + block + content[at + 512 :])
    found = walk(tmp_path / "whole.tar")
    assert found[:-2] == original[:-1]
    assert [reason for _, reason in found[-2:]] == [Reason.MEMBER_TOO_LARGE, Reason.SOURCE_TRUNCATED]


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"X"], ids=bytes.decode)
def test_a_name_that_promises_gigabytes_ends_the_archive_before_they_are_read(whole, tmp_path, kind):
    path, content, original = whole
    at = list(borders(path))[-7]  # the header of the last example's image
    block = rewritten(rewritten(content[at : at + 512], 124, b"77777777777"), 156, kind)
    (tmp_path / "whole.tar").write_bytes(content[:at] + block + content[at + 512 :])
    with open(tmp_path / "whole.tar", "r+b") as stream:
        stream.truncate(1 << 28)
    tracemalloc.start()
    try:
        found = walk(tmp_path / "whole.tar", limit=1 << 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == cut_after(original, 5)
    assert peak < 1 << 24


def test_a_map_of_holes_that_the_archive_ends_in_is_reported(whole, tmp_path):
    path, content, original = whole
    at = list(borders(path))[-7]
    block = rewritten(rewritten(content[at : at + 512], 482, b"\1"), 156, b"S")
    (tmp_path / "whole.tar").write_bytes(content[:at] + block)
    assert walk(tmp_path / "whole.tar") == cut_after(original, 5)


def test_names_that_name_names_without_end_are_reported(whole, tmp_path):
    path, content, original = whole
    at = list(borders(path))[-7]
    block = rewritten(rewritten(content[at : at + 512], 124, b"0" * 11), 156, b"L")
    (tmp_path / "whole.tar").write_bytes(content[:at] + block * 5_000)
    assert walk(tmp_path / "whole.tar") == cut_after(original, 5)


@pytest.mark.parametrize(
    ("place", "data"), [(124, b"77777777777"), (482, b"\1")], ids=["gigabytes", "a map of holes"]
)
def test_a_first_header_that_leads_nowhere_is_no_tar(whole, tmp_path, place, data):
    kind = b"S" if place == 482 else b"L"
    block = rewritten(rewritten(whole[1][:512], place, data), 156, kind)
    (tmp_path / "a.tar").write_bytes(block)
    with pytest.raises(DataError, match="not an uncompressed tar") as caught:
        walk(tmp_path / "a.tar")
    assert caught.value.reason is Reason.SOURCE_UNREADABLE


@pytest.mark.parametrize("fill", [b"\0", b"\xaa"], ids=["zeros", "garbage"])
@pytest.mark.parametrize("size", [512, 5_120])
def test_a_hole_in_the_middle_is_reported(whole, tmp_path, fill, size):
    path, data, original = whole
    ends = [max(m + (-m % 512) for m in range_) for range_ in example_ends(path)]
    damaged = tmp_path / "whole.tar"
    damaged.write_bytes(data[: ends[2]] + fill * size + data[ends[2] :])
    assert walk(damaged) == cut_after(original, 3)


def test_a_second_tar_behind_the_first_is_reported(whole, tmp_path):
    _, data, original = whole
    (tmp_path / "whole.tar").write_bytes(data + data)
    assert walk(tmp_path / "whole.tar") == cut_after(original, 6)


def test_any_amount_of_padding_is_an_end(whole, tmp_path):
    path, data, original = whole
    end = list(borders(path))[-1]
    for padding in (512, 1024, 100_000):
        (tmp_path / "whole.tar").write_bytes(data[:end] + bytes(padding))
        assert walk(tmp_path / "whole.tar") == original
