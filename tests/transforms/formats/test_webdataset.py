import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest

from sources import members, write_tar
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.transforms.formats import fields as json_fields
from tagmill.transforms.formats.base import Limits, Source
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.formats.webdataset import Webdataset
from webdatasets import CONFIG, PNG, walk

CC12M = Path(__file__).parents[3].parent / "shared" / "data" / "photos" / "cc12m-000000.tar"


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


@pytest.mark.parametrize("name", ["k.png", "k.jpg", "k.json", "k.txt"])
def test_a_second_member_of_a_sort_is_bad_and_not_passed_over(read, name):
    found = read(("k.jpg", b"first"), ("k.json", b"{}"), ("k.txt", b"words"), (name, b"{}"), ("l.png", PNG))
    assert found[0] == ("k", Reason.RECORD_INVALID)
    assert found[1][1].data == PNG


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
    for _ in range(json_fields.MAX_DEPTH - 2):
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
    ("image", "found"),
    [(["image.jpg"], b"the image"), (["png", "image.jpg"], PNG), (["image.jpg", "png"], b"the image")],
    ids=str,
)
def test_the_image_is_the_first_that_is_named(read, image, found):
    config = CONFIG.model_copy(update={"image": image})
    contents = [("k.depth.png", b"far"), ("k.png", PNG), ("k.image.jpg", b"the image"), ("l.jpg", b"x")]
    (key, record), (_, why) = read(*contents, config=config)
    assert (key, record.data, why) == ("k", found, Reason.IMAGE_MISSING)


def test_what_there_is_in_place_of_an_image_is_said(read, tmp_path):
    path = write_tar(tmp_path / "b.tar", [("k.svg", b"x"), ("k.txt", b"x")])
    source = Source(str(tmp_path), "b.tar", str(tmp_path))
    with open(path, "rb") as raw:
        found = Webdataset().read(HashingStream(raw), source, CONFIG, Limits(1 << 20))
        example = next(found)
        with pytest.raises(
            DataError, match=r"no image member in b.tar; saw .svg, .txt; set `image: \[svg\]`"
        ):
            example.load()


def test_texts_are_captions_by_their_extensions(read):
    contents = [("k.png", PNG), ("k.caption", b"one"), ("k.txt", b"two"), ("k.de.txt", b"drei")]
    ((_, record),) = read(*contents)
    assert record.captions == ["two", "one"]
    config = CONFIG.model_copy(update={"captions": ["de.txt", "caption"]})
    ((_, record),) = read(*contents, config=config)
    assert (record.captions, record.used) == (["drei", "one"], ("de.txt", "caption"))


def test_a_class_is_a_label_by_its_name(tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("cat\ndog\n")
    path = write_tar(
        tmp_path / "a.tar",
        [
            (f"{n}.{e}", d)
            for n, c in enumerate(("1", "wolf", "7"))
            for e, d in (("png", PNG), ("cls", c.encode()))
        ],
    )
    named = [record.fields for _, record in walk(path, format_=Webdataset(classes=str(names)))]
    assert named == [{"labels": ["dog"]}, {"labels": ["wolf"]}, {"labels": ["class 7 of 2"]}]
    assert [record.fields for _, record in walk(path)] == [{"cls": 1}, {"labels": ["wolf"]}, {"cls": 7}]


def test_members_that_do_not_lie_together_are_put_together(tmp_path):
    contents = [item for i in range(3) for item in members(f"{i:03d}", i).items()]
    whole = walk(write_tar(tmp_path / "a.tar", contents))
    scattered = walk(
        write_tar(tmp_path / "b.tar", sorted(contents, key=lambda item: item[0][-3:], reverse=True))
    )
    for (key, record), (other, found) in zip(whole, scattered, strict=True):
        assert (key, record.data, record.captions, record.fields) == (
            other,
            found.data,
            found.captions,
            found.fields,
        )
        place = found.image
        data = (tmp_path / "b.tar").read_bytes()
        assert data[place["offset"] : place["offset"] + place["size"]] == record.data


def test_a_cut_tar_whose_members_do_not_lie_together_is_refused_as_a_whole(tmp_path):
    contents = [(f"{n}.{e}", PNG if e == "png" else b"words") for e in ("png", "txt") for n in range(3)]
    path = write_tar(tmp_path / "a.tar", contents)
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:-2])
    with pytest.raises(DataError, match="do not lie together"):
        walk(path)


def test_far_away_members_that_do_not_lie_together_stop_the_run():
    contents = [(f"{n}.{e}", PNG if e == "png" else b"words") for e in ("png", "txt") for n in range(3)]
    with fsspec.open("memory://torn/a.tar", "wb") as sink, tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in contents:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    source = Source("memory://torn", "a.tar", "memory://torn")
    with fsspec.open("memory://torn/a.tar", "rb") as raw:
        found = Webdataset().read(HashingStream(raw), source, CONFIG, Limits(1 << 20))
        with pytest.raises(ConfigError, match=r"the members of 0 do not lie together; .* tar --sort=name"):
            list(found)


def test_a_compressed_tar_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    config = CONFIG.model_copy(update={"path": str(tmp_path / "*.tar.gz")})
    with pytest.raises(ConfigError, match=r"a.tar.gz is compressed; .* unpack it \(gunzip"):
        Webdataset().find_sources(config)


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


def test_a_long_name_is_read_up_to_the_bound(read):
    key = "folder/" * 20_000 + "k"
    ((found, record),) = read((f"{key}.png", PNG))
    assert (found, record.data) == (key, PNG)


def test_a_name_that_stands_twice_in_json_is_bad(read):
    found = read(("a.png", PNG), ("a.json", b'{"caption": "a dog", "caption": "a cat"}'), ("b.png", PNG))
    assert found[0] == ("a", Reason.RECORD_INVALID)
    assert found[1][1].data == PNG
