import contextlib
import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sources import members, write_tar
from tagmill.tag_system.errors import DataError, Reason
from tagmill.transforms.readers import base, webdataset
from tagmill.transforms.readers.base import HashingStream, InputConfig, Limits, Source

CC12M = Path(__file__).parents[3].parent / "shared" / "data" / "photos" / "cc12m-000000.tar"

CONFIG = InputConfig(name="x", format="webdataset", path="unused")
PNG = members("k", 0)["k.png"]


def walk(path, *, limit=1 << 20, load=True, config=CONFIG):
    """Read a tar: for each example its key, and its record or the reason why there is none."""
    source = Source(str(path.parent), path.name, str(path.parent))
    found = []
    with open(path, "rb") as raw:
        for item in webdataset.read(HashingStream(raw), source, config, Limits(limit)):
            try:
                record = item.load() if load else None
                if record is not None:
                    assert record.image["uri"] == path.name
                    record.image["uri"] = "it.tar"
                found.append((item.key, record))
            except DataError as error:
                found.append((item.key, error.reason))
    return found


@pytest.fixture
def read(tmp_path):
    def read(*contents, **options):
        return walk(write_tar(tmp_path / "a.tar", list(contents)), **options)

    return read


def test_examples_come_in_order_with_the_place_of_their_image(tmp_path):
    contents = [item for i in range(3) for item in members(f"{i:03d}", i).items()]
    path = write_tar(tmp_path / "a.tar", contents)
    found = walk(path)
    assert [key for key, _ in found] == ["000", "001", "002"]
    for number, (_, record) in enumerate(found):
        place = record.image
        assert (place["kind"], place["uri"]) == ("range", "it.tar")
        assert path.read_bytes()[place["offset"] : place["offset"] + place["size"]] == record.data
        assert record.data == members("x", number)["x.png"]
        assert record.fields["number"] == number
        assert record.captions == record.fields["captions"]


@pytest.mark.skipif(not CC12M.exists(), reason="the photographs are not here")
def test_img2dataset_tars_are_read():
    found = walk(CC12M)
    assert len(found) == 32
    for key, record in found:
        assert record.data[:2] == b"\xff\xd8"
        assert record.fields["key"] == key
        # img2dataset writes the caption twice, as JSON field and as text.
        assert record.captions == [record.fields["caption"], record.fields["caption"].strip()]


@pytest.mark.parametrize("order", ["png json txt", "txt json png", "json txt png", "png txt json"])
def test_the_order_of_members_does_not_matter(read, order):
    data = {"png": PNG, "json": b'{"caption": "from json"}', "txt": b" from text \n"}
    ((key, record),) = read(*((f"k.{extension}", data[extension]) for extension in order.split()))
    assert (key, record.data) == ("k", PNG)
    assert record.captions == ["from json", "from text"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("k.png", "k"),
        ("./k.png", "k"),
        ("a/b/k.png", "a/b/k"),
        ("a.b/c.d/k.png", "a.b/c.d/k"),
        ("k.PNG", "k"),
        ("k 1 (2).JPeG", "k 1 (2)"),
        ("schön/😀.png", "schön/😀"),
        ("a" * 180 + ".png", "a" * 180),
        ("new\nline.png", "new\nline"),
    ],
    ids=ascii,
)
def test_the_key_is_the_name_up_to_the_first_dot_of_the_file(read, name, key):
    ((found, record),) = read((name, PNG))
    assert found == key
    assert record.data == PNG


def test_further_extensions_are_no_images(read):
    ((key, record),) = read(("k.seg.png", b"mask"), ("k.png", PNG), ("k.npy", b"1"), ("k.cls", b"3"))
    assert (key, record.data, record.captions) == ("k", PNG, [])


@pytest.mark.parametrize("name", ["._k.png", "a/._k.png", ".png", "png", "a/", "a/.hidden.png"])
def test_files_that_belong_to_no_example_are_passed_over(read, name):
    assert [key for key, _ in read((name, b"x"), ("k.png", PNG))] == ["k"]


def test_folders_are_passed_over_and_links_are_dead(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("a.b", tarfile.DIRTYPE), ("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("k.png")
        info.size = len(PNG)
        archive.addfile(info, io.BytesIO(PNG))
    (a, why), (b, same), (k, _) = walk(tmp_path / "a.tar")
    assert (a, b, k) == ("a", "b", "k")
    assert why is same is Reason.IMAGE_MISSING


def test_of_two_images_the_first_counts(read):
    ((_, record),) = read(("k.jpg", b"first"), ("k.png", b"second"))
    assert record.data == b"first"


def test_an_example_without_an_image_is_dead_and_the_next_lives(read):
    found = read(("a.json", b"{}"), ("a.txt", b"words"), ("b.png", PNG))
    assert found[0] == ("a", Reason.IMAGE_MISSING)
    assert found[1][1].data == PNG


@pytest.mark.parametrize("name", ["a.png", "a.json", "a.txt"])
def test_a_member_over_the_cap_is_dead_and_the_next_lives(read, name):
    small = [(n, b"{}" if n.endswith("json") else b"x") for n in ("a.png", "a.json", "a.txt") if n != name]
    found = read((name, bytes(2_000)), *small, ("b.png", b"x" * 1_000), limit=1_000)
    assert found[0] == ("a", Reason.MEMBER_TOO_LARGE)
    assert (found[1][0], found[1][1].data) == ("b", b"x" * 1_000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\xff",
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}",
        b'{"a": ' + b'{"a": ' * 900 + b"1" + b"}" * 901,
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
    ids=[
        "empty",
        "cut",
        "list",
        "null",
        "string",
        "bytes",
        "abyss",
        "60 levels",
        "900 levels",
        "5,000 digits",
    ],
)
def test_bad_json_is_dead_and_the_next_lives(read, data):
    found = read(("a.png", PNG), ("a.json", data), ("b.png", PNG), ("b.json", b"{}"))
    assert found[0] == ("a", Reason.RECORD_INVALID)
    assert found[1][1].data == PNG


def test_json_may_be_nested_a_little_and_have_a_byte_order_mark(read):
    deep = {"a": 1}
    for _ in range(base.MAX_DEPTH - 2):
        deep = {"a": [deep]} if "b" in deep else {"a": deep}
    ((_, record),) = read(("a.png", PNG), ("a.json", b"\xef\xbb\xbf" + json.dumps(deep).encode()))
    assert record.fields == deep


def test_what_pandas_writes_for_missing_values_is_missing(read):
    ((_, record),) = read(("a.png", PNG), ("a.json", b'{"caption": NaN, "x": [Infinity, -Infinity, 1.5]}'))
    assert record.fields == {"caption": None, "x": [None, None, 1.5]}
    assert record.captions == []


def test_a_text_that_is_no_utf8_is_handed_on_as_bytes(read):
    ((_, record),) = read(("a.png", PNG), ("a.txt", b"caf\xe9"))
    assert record.captions == [b"caf\xe9"]


@pytest.mark.parametrize(
    ("fields", "captions"),
    [
        ({}, []),
        ({"caption": None}, []),
        ({"caption": "one"}, ["one"]),
        ({"captions": ["one", None, 3]}, ["one", None, 3]),
        ({"caption": "two", "captions": ["one"]}, ["one", "two"]),
        ({"caption": {"en": "one"}}, [{"en": "one"}]),
        ({"caption": ""}, [""]),
    ],
    ids=str,
)
def test_captions_are_taken_as_they_are(read, fields, captions):
    ((_, record),) = read(("a.png", PNG), ("a.json", json.dumps(fields).encode()))
    assert record.captions == captions


def test_the_caption_fields_can_be_named(read):
    config = CONFIG.model_copy(update={"captions": ["alt"]})
    ((_, record),) = read(("a.png", PNG), ("a.json", b'{"alt": "x", "caption": "y"}'), config=config)
    assert record.captions == ["x"]


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


def test_an_empty_tar_has_no_examples(read):
    assert read() == []


def test_skipping_gives_the_same_keys_as_loading(read):
    contents = [item for i in range(4) for item in members(f"{i:03d}", i).items()]
    assert [k for k, _ in read(*contents, load=False)] == [k for k, _ in read(*contents)]


def test_no_header_is_kept_in_memory(tmp_path, monkeypatch):
    opened = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **o: opened.append(real(*a, **o)) or opened[-1])
    walk(write_tar(tmp_path / "a.tar", [(f"{i}.png", b"x") for i in range(50)]))
    assert len(opened[-1].members) <= 1


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
    assert [pair for pair in found[:intact] if pair[0] in by_key] == original[:intact]
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


def example_ends(path):
    """For each example, where the data of its members ends."""
    ends = {}
    with tarfile.open(path) as archive:
        for member in archive:
            ends.setdefault(member.name.split(".")[0], []).append(member.offset_data + member.size)
    return list(ends.values())


@settings(max_examples=150)
@given(st.data())
def test_any_cut_never_crashes_and_is_told(whole, tmp_path, data):
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
    assert found == [*original[:-1], ("whole.tar#end", Reason.SOURCE_TRUNCATED)]
    assert peak < 1 << 24


def test_a_long_name_is_read_up_to_the_bound(read):
    key = "folder/" * 20_000 + "k"
    ((found, record),) = read((f"{key}.png", PNG))
    assert (found, record.data) == (key, PNG)


def test_a_map_of_holes_that_the_archive_ends_in_is_told(whole, tmp_path):
    path, content, original = whole
    at = list(borders(path))[-7]
    block = rewritten(rewritten(content[at : at + 512], 482, b"\1"), 156, b"S")
    (tmp_path / "whole.tar").write_bytes(content[:at] + block)
    assert walk(tmp_path / "whole.tar") == [*original[:-1], ("whole.tar#end", Reason.SOURCE_TRUNCATED)]


def test_names_that_name_names_without_end_are_told(whole, tmp_path):
    path, content, original = whole
    at = list(borders(path))[-7]
    block = rewritten(rewritten(content[at : at + 512], 124, b"0" * 11), 156, b"L")
    (tmp_path / "whole.tar").write_bytes(content[:at] + block * 5_000)
    assert walk(tmp_path / "whole.tar") == [*original[:-1], ("whole.tar#end", Reason.SOURCE_TRUNCATED)]


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
def test_a_hole_in_the_middle_is_told(whole, tmp_path, fill, size):
    path, data, original = whole
    ends = [max(m + (-m % 512) for m in range_) for range_ in example_ends(path)]
    damaged = tmp_path / "whole.tar"
    damaged.write_bytes(data[: ends[2]] + fill * size + data[ends[2] :])
    found = walk(damaged)
    assert found[:3] == original[:3]
    assert found[3:] == [("whole.tar#end", Reason.SOURCE_TRUNCATED)]


def test_a_second_tar_behind_the_first_is_told(whole, tmp_path):
    _, data, original = whole
    (tmp_path / "whole.tar").write_bytes(data + data)
    found = walk(tmp_path / "whole.tar")
    assert found == [*original, ("whole.tar#end", Reason.SOURCE_TRUNCATED)]


def test_any_amount_of_padding_is_an_end(whole, tmp_path):
    path, data, original = whole
    end = list(borders(path))[-1]
    for padding in (512, 1024, 100_000):
        (tmp_path / "whole.tar").write_bytes(data[:end] + bytes(padding))
        assert walk(tmp_path / "whole.tar") == original
