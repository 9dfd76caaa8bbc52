"""JSON lines, JSON lists, CSV and TSV: one meaning in four formats, by whole runs of the command line."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pytest

from input_runs import ingest_input, run_ingested, run_input, write_images
from runs import damaged, samples
from tagmill.tag_system.core.errors import ConfigError

LABELS = [{"name": "red", "box": [1, 2, 30, 40]}, {"name": "sky"}]


@pytest.fixture
def photos(tmp_path):
    write_images(tmp_path, "a.png", "b/c.png", "d.png")
    return tmp_path


def rows():
    return [
        {"file_name": "a.png", "text": 'one, "two"\nthree', "labels": LABELS, "width": 96, "height": 80},
        {"file_name": "b/c.png", "text": ["ü", "a\tb"], "labels": ["sky"], "split": "val", "license": "CC"},
        {"file_name": "a.png", "text": "again", "labels": LABELS, "width": 96, "height": 80},
    ]


def tabled(delimiter, lines):
    sink = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(sink, names, delimiter=delimiter)
    writer.writeheader()
    for line in lines:
        cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in line.items()}
        writer.writerow(cells)
    return sink.getvalue().encode()


def as_lines(lines):
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def in_a_list(lines):
    """Captions as lists, whose line ends and tabs JSON escapes."""
    listed = [[text] if isinstance(text := line["text"], str) else text for line in lines]
    return [{**line, "text": json.dumps(texts)} for line, texts in zip(lines, listed, strict=True)]


WRITERS = {
    "a.jsonl": as_lines,
    "a.json": lambda lines: json.dumps(lines, indent=1).encode(),
    "b.json": lambda lines: json.dumps({"info": {"n": [1]}, "ids": [1, 2], "data": lines, "z": 1}).encode(),
    "a.csv": lambda lines: b"\xef\xbb\xbf" + tabled(",", lines),
    "b.csv": lambda lines: tabled(",", lines).replace(b"\r\n", b"\n"),
    "a.tsv": lambda lines: tabled("\t", in_a_list(lines)),
    "a.jsonl.gz": lambda lines: gzip.compress(as_lines(lines)[:100]) + gzip.compress(as_lines(lines)[100:]),
    "a.csv.zst": lambda lines: pa.compress(tabled(",", lines), codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_one_meaning_in_all_formats(photos, name):
    (photos / name).write_bytes(WRITERS[name](rows()))
    format_ = name.split(".")[1]
    found = ingest_input(photos, format=format_, path=str(photos / name), options={"group": True})
    first, second = found.rows
    boxes = [{"name": "red", "box": [1, 2, 30, 40]}, {"name": "sky", "box": None}]
    assert (first["key"], first["captions"]) == ("x/a", ['one, "two"\nthree', "again"])
    assert (first["labels"], first["meta"]) == (boxes, '{"height": 80, "width": 96}')
    assert (second["key"], second["captions"], second["split"]) == ("x/b/c", ["ü", "a\tb"], "val")
    assert second["labels"] == [{"name": "sky", "box": None}]
    assert json.loads(second["meta"])["license"] == "CC"
    assert found.dead == []


def test_a_whole_run_over_a_packed_table(photos):
    (photos / "a.tsv.gz").write_bytes(gzip.compress(tabled("\t", in_a_list(rows()))))
    run_input(photos, format="tsv", path=str(photos / "*.gz"), options={"group": True}, dead=0)
    assert run_ingested(photos).captions == {"a": ['one, "two"\nthree', "again"], "b/c": ["ü", "a\tb"]}
    assert [sample["key"] for sample in samples(photos / "run")] == ["x/a", "x/b/c"]
    assert damaged(photos / "run") == []


def test_lines_that_follow_each_other_are_one_example_and_others_repeat_its_key(photos):
    lines = [
        {"image": "a.png", "caption": "1", "id": 1},
        {"image": "a.png", "caption": "2", "id": 2},
        {"image": "d.png", "caption": "3"},
        {"image": "a.png", "caption": "4"},
        {"image": "d.png", "caption": "5", "key": "own"},
    ]
    (photos / "a.jsonl").write_bytes(as_lines(lines))
    source = {"format": "jsonl", "path": str(photos / "a.jsonl")}
    found = ingest_input(photos, **source)
    assert found.captions == {"a": ["1", "2"], "d": ["3"], "own": ["5"]}
    assert json.loads(found.rows[0]["meta"]) == {"id": [1, 2]}
    ((key, reason, detail),) = found.dead
    assert (key, reason) == ("a", "key_repeated")
    assert "`options: {group: true}`" in detail
    found = ingest_input(photos, **source, options={"group": True})
    assert found.captions == {"a": ["1", "2", "4"], "d": ["3"], "own": ["5"]}
    assert found.dead == []
    found = ingest_input(photos, **source, options={"group": False})
    assert found.captions == {"a": ["1"], "d": ["3"], "own": ["5"]}


def test_lines_of_one_image_in_two_splits_train_on_nothing(photos):
    lines = [{"image": "a.png", "split": "train"}, {"image": "a.png", "split": "test"}, {"image": "d.png"}]
    (photos / "a.jsonl").write_bytes(as_lines(lines))
    found = ingest_input(photos, format="jsonl", path=str(photos / "a.jsonl"))
    ((key, reason, detail),) = found.dead
    assert (key, reason) == ("a", "record_invalid")
    assert "different splits" in detail


def test_a_bad_row_is_dead_and_the_rows_after_it_live(photos):
    rows = [
        b"filename,caption,labels",
        b'a.png,"never closed, it takes in all,',
        b"b/c.png,\xff is no UTF-8,red|big red; sky",
        b"d.png,one,two,three",
        b'd.png,"{not" JSON},',
        b"",
    ]
    (photos / "a.csv").write_bytes(b"\n".join(rows))
    found = ingest_input(photos, format="csv", path=str(photos / "a.csv"))
    assert found.captions == {"b/c": [None], "d": ["{not JSON}"]}
    assert [label["name"] for label in found.rows[0]["labels"]] == ["red", "big red", "sky"]
    assert [letter[:2] for letter in found.dead] == [
        ("a.csv#2", "record_invalid"),
        ("a.csv#4", "record_invalid"),
        ("b/c", "caption_not_text"),
    ]


def test_columns_may_be_named_where_the_file_does_not(photos):
    (photos / "a.tsv").write_text('a "quoted" word\ta.png\n"whole ""cell"""\td.png\n')
    options = {"columns": ["words", "file"]}
    source = {"format": "tsv", "path": str(photos / "a.tsv"), "image": ["file"], "captions": ["words"]}
    found = ingest_input(photos, **source, options=options)
    assert found.captions == {"a": ['a "quoted" word'], "d": ['whole "cell"']}


def test_a_path_from_the_root_counts_within_the_image_folder_alone(photos):
    inside, outside = photos / "b" / "c.png", photos / "a.png"
    (photos / "a.jsonl").write_bytes(as_lines([{"image": str(inside)}, {"image": str(outside)}]))
    found = ingest_input(photos, format="jsonl", path=str(photos / "a.jsonl"), images=str(photos / "b"))
    assert list(found.captions) == ["c"]
    ((key, reason, _),) = found.dead
    assert (key, reason) == ("a.jsonl#2", "record_invalid")


@pytest.mark.parametrize(
    ("format_", "data", "words"),
    [
        ("jsonl", b"PAR1....PAR1", "is Parquet: use format parquet"),
        ("jsonl", as_lines([1])[:0] + b'[{"image": "a.png"}]', "is a JSON list: use format json"),
        ("jsonl", b"image\tcaption\na.png\tx\n", "is TSV: use format tsv"),
        ("jsonl", b"image,caption\na.png,x\n", "is CSV: use format csv"),
        ("json", as_lines([{"image": "a.png"}] * 2), "is JSON lines: use format jsonl"),
        ("json", b"image,caption\na.png,x\n", "is CSV: use format csv"),
        ("csv", b"image\tcaption\na.png\tx\n", "is TSV: use format tsv"),
        ("csv", b"image;caption\na.png;x\n", "use format csv, options {delimiter: ';'}"),
        ("tsv", b"image,caption\na.png,x\n", "use format csv"),
        ("csv", as_lines([{"image": "a.png"}]), "is JSON lines: use format jsonl"),
        ("csv", b"PK\x03\x04", "is a zip: unpack it"),
        ("csv", gzip.compress(b"PAR1", mtime=0), "is Parquet: use format parquet"),
        ("jsonl", b"x" * 257 + b"ustar\0", "is a tar: use format webdataset"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_file_of_another_format_is_told_in_one_line(photos, format_, data, words):
    (photos / "it").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ingest_input(photos, format=format_, path=str(photos / "it"))
    said = str(caught.value)
    assert f"input x: {photos / 'it'} is" in said
    assert words in said


@pytest.mark.parametrize(
    ("format_", "data", "words"),
    [
        (
            "tsv",
            b"URL\tTEXT\nhttps://e.org/1.jpg\ta cat\n",
            "--input_format tsv --url_col URL --caption_col TEXT --output_format webdataset ",
        ),
        (
            "jsonl",
            as_lines([{"url": "http://e.org/1", "caption": "x"}] * 20),
            "--input_format jsonl --url_col url",
        ),
        ("tsv", b"https://e.org/1.jpg\ta cat\n", "has no line that names its columns"),
    ],
    ids=["columns", "lines", "no header"],
)
def test_a_list_of_urls_is_answered_with_the_command_that_makes_tars_of_it(photos, format_, data, words):
    (photos / "it").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ingest_input(photos, format=format_, path=str(photos / "it"))
    said = str(caught.value)
    assert words in said
    assert "\n" not in said.strip()


def test_an_image_among_the_first_lines_makes_no_list_of_urls_of_them(photos):
    lines = [{"url": "http://e.org/1"}] * 9 + [{"image": "a.png"}] + [{"url": "http://e.org/1"}] * 9
    (photos / "a.jsonl").write_bytes(as_lines(lines))
    found = ingest_input(photos, format="jsonl", path=str(photos / "a.jsonl"))
    assert list(found.captions) == ["a"]
    assert len(found.dead) == 18


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: pa.compress(data, codec="zstd", asbytes=True)])
def test_a_packed_file_that_is_cut_gives_what_it_holds_and_says_so(photos, pack):
    data = pack(as_lines([{"image": "a.png"}]) + bytes(range(256)) * 8_000)
    (photos / "a.jsonl").write_bytes(data[:-20])
    found = ingest_input(photos, format="jsonl", path=str(photos / "a.jsonl"))
    assert [letter[:2] for letter in found.dead][-1] == ("a.jsonl", "source_truncated")


def test_what_unpacks_to_far_more_than_a_line_may_hold_is_never_held(photos):
    bomb = gzip.compress(b'{"image": "a.png", "x": "' + bytes(200 << 20), 9) + gzip.compress(
        b'\n{"image": "d.png"}'
    )
    (photos / "a.jsonl").write_bytes(bomb)
    found = ingest_input(photos, format="jsonl", path=str(photos / "a.jsonl"))
    assert list(found.captions) == ["d"]
    assert [letter[:2] for letter in found.dead] == [("a.jsonl#1", "record_too_large")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": "all"}, "group is adjacent, true or false, got 'all'"),
        ({"list": "rows"}, "has no list `rows`, which the option list names; it has `data`"),
    ],
    ids=str,
)
def test_a_bad_option_is_one_line(photos, options, words):
    (photos / "a.json").write_text('{"data": [{"image": "a.png"}]}')
    assert words in run_input(photos, code=2, format="json", path=str(photos / "a.json"), options=options)
