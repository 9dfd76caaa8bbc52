import io
import json
import os
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sources import encode, members, square_image, write_squares, write_tar
from stage_runs import Bench, shared, source_task
from tagmill.tag_system.errors import DataError, InputChangedError, Reason
from tagmill.transforms import files, parts
from tagmill.transforms.duplicates import Duplicates, DuplicatesConfig
from tagmill.transforms.ingest import (
    SCHEMA,
    Ingest,
    IngestConfig,
    IngestSources,
    check_captions,
    ingest_source,
    parse_labels,
    source_record_uri,
)

PNG = members("k", 0)["k.png"]


@pytest.fixture
def ingest(tmp_path):
    """Ingest examples given as {key: fields or member bytes} and return the bench."""

    def ingest(examples, config=None, part_size=5, **changes):
        contents = []
        for number, (key, fields) in enumerate(examples.items()):
            contents.append((f"{key}.png", encode(square_image(["red"], number))))
            contents.append(
                (f"{key}.json", fields if isinstance(fields, bytes) else json.dumps(fields).encode())
            )
        bench = Bench(tmp_path / "run", part_size=part_size)
        bench.ingest(write_tar(tmp_path / "data" / "a.tar", contents), config, **changes)
        return bench

    return ingest


def rows(bench):
    return [record for name in bench.names for record in bench.part("ingest", name).records]


def letters(bench):
    return [(d["row"], d["unit"], d["reason"]) for name in bench.names for d in bench.dead("ingest", name)]


def check_counts(bench):
    """in = out + dead, for examples and for captions, against what the tables really hold."""
    for name in bench.names:
        part, dead = bench.part("ingest", name), bench.dead("ingest", name)
        example, caption = part.header.counts["example"], part.header.counts["caption"]
        died = {unit: sum(d["unit"] == unit for d in dead) for unit in ("example", "caption")}
        living = sum(text is not None for record in part.records for text in record["captions"])
        assert example == {
            "in": part.table.num_rows + died["example"],
            "out": part.table.num_rows,
            "dropped": 0,
            "dead": died["example"],
        }
        assert caption == {
            "in": living + died["caption"],
            "out": living,
            "dropped": 0,
            "dead": died["caption"],
        }
        assert sum(part.header.dead.values()) == len(dead)
        assert part.header.gone == sorted(d["row"] for d in dead if d["unit"] == "example")
        everyone = {r["row"] for r in part.records} | set(part.header.gone)
        assert everyone == set(range(example["in"]))


def test_a_row_says_what_the_source_says(ingest):
    bench = ingest({"a/0": {"captions": [" A  red square "], "labels": ["red"], "url": "u", "n": 1}})
    (row,) = rows(bench)
    image = encode(square_image(["red"], 0))
    assert bench.part("ingest").table.schema.equals(SCHEMA)
    assert row["key"] == "squares/a/0"
    assert (row["width"], row["height"], row["format"]) == (96, 80, "PNG")
    assert row["captions"] == ["A  red square"]
    assert row["labels"] == [{"name": "red", "box": None}]
    assert json.loads(row["meta"]) == {"url": "u", "n": 1}
    data = Path(bench.roots[bench.names[0]], row["image"]["uri"]).read_bytes()
    assert data[row["image"]["offset"] :][: row["image"]["size"]] == image
    header = bench.part("ingest").header
    assert header.notes["input"] == "squares"
    check_counts(bench)


@pytest.mark.parametrize(
    ("part_size", "count", "sizes"),
    [(1, 3, [1, 1, 1]), (3, 6, [3, 3]), (3, 7, [3, 3, 1]), (10, 3, [3]), (2, 0, [])],
    ids=str,
)
def test_parts_are_cut_by_count(tmp_path, part_size, count, sizes):
    bench = Bench(tmp_path / "run", part_size=part_size)
    found = bench.ingest(write_squares(tmp_path / "a.tar", count))
    assert [part.table.num_rows for part in found] == sizes
    assert [[r["row"] for r in part.records] for part in found] == [list(range(size)) for size in sizes]
    assert [r["key"] for r in rows(bench)] == [f"squares/{i:06d}" for i in range(count)]
    (name,) = files.list_names(os.path.join(bench.uri("ingest"), "sources"))
    record = json.loads(files.read_bytes(source_record_uri(bench.uri("ingest"), name.removesuffix(".json"))))
    assert (record["parts"], record["examples"]) == (len(sizes), count)


def test_dead_rows_keep_their_numbers_and_fill_parts(ingest):
    examples = {f"{i:03d}": b"broken" if i in (0, 4, 5, 6, 7) else {"caption": str(i)} for i in range(9)}
    bench = ingest(examples, part_size=4)
    assert [[r["row"] for r in bench.part("ingest", n).records] for n in bench.names] == [[1, 2, 3], [], [0]]
    assert [bench.part("ingest", n).header.gone for n in bench.names] == [[0], [0, 1, 2, 3], []]
    check_counts(bench)


def test_a_missing_part_is_made_again_as_it_was(tmp_path):
    path = write_squares(tmp_path / "a.tar", 12)
    bench = Bench(tmp_path / "run", part_size=3)
    before = bench.ingest(path)
    stamps = {n: os.stat(parts.part_uri(bench.uri("ingest"), n)).st_mtime_ns for n in bench.names}
    for lost in (bench.names[2], bench.names[0]):
        files.remove(parts.part_uri(bench.uri("ingest"), lost))
        after = bench.ingest(path)
        assert [p.header.digest for p in after] == [p.header.digest for p in before]
        assert all(a.table.equals(b.table) for a, b in zip(after, before, strict=True))
        for name, stamp in stamps.items():
            remade = os.stat(parts.part_uri(bench.uri("ingest"), name)).st_mtime_ns != stamp
            assert not remade or name in (bench.names[2], bench.names[0])


def test_a_source_that_changed_before_the_work_began_stops_the_run(tmp_path):
    stage = Ingest(IngestConfig(), shared())
    task = source_task(stage, write_squares(tmp_path / "a.tar", 2))
    write_squares(tmp_path / "a.tar", 3)
    with pytest.raises(InputChangedError):
        ingest_source(stage, str(tmp_path / "run"), task)
    assert not files.exists(str(tmp_path / "run"))


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_do_not_change_the_table(tmp_path, threads):
    path = write_squares(tmp_path / "a.tar", 20)
    digests = []
    for name, number in (("one", 1), ("other", threads)):
        bench = Bench(tmp_path / name, part_size=20, threads=number)
        digests += [part.header.digest for part in bench.ingest(path)]
    assert digests[0] == digests[1]


def test_the_beam_job_makes_the_same_parts(tmp_path):
    path = write_squares(tmp_path / "a.tar", 7)
    bench = Bench(tmp_path / "direct", part_size=3)
    expected = [part.header.digest for part in bench.ingest(path)]
    stage = Ingest(IngestConfig(), bench.shared)
    for runner in ("FnApiRunner", "BundleBasedDirectRunner"):
        folder = str(tmp_path / runner)
        with beam.Pipeline(runner=runner) as pipeline:
            pipeline | beam.Create([source_task(stage, path)]) | IngestSources(stage, folder)
        found = [parts.read_header(parts.part_uri(folder, name)).digest for name in bench.names]
        assert found == expected


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("k" * 400, None),
            ("k" * 401, Reason.KEY_INVALID),
            ("tab\there", Reason.KEY_INVALID),
            ("new\nline", Reason.KEY_INVALID),
            ("no\udc80utf8", Reason.KEY_INVALID),
            ("right\u202eleft", Reason.KEY_INVALID),
            ("漢字/ключ 😀", None),
            ("a%2Fb c'\"<b>", None),
        ],
        ids=ascii,
    )
    def test_a_key_is_short_and_printable(self, ingest, key, reason):
        bench = ingest({key: {"caption": "x"}, "good": {"caption": "y"}})
        assert letters(bench) == ([(0, "example", reason)] if reason else [])
        assert [r["key"] for r in rows(bench)] == ([] if reason else [f"squares/{key}"]) + ["squares/good"]
        for dead in bench.dead("ingest"):
            assert dead["key"].isprintable()
        check_counts(bench)

    def test_a_key_that_comes_again_is_dead(self, tmp_path):
        contents = [item for k in ("a", "b", "a", "a", "c") for item in members(k, ord(k)).items()]
        bench = Bench(tmp_path / "run", part_size=2)
        bench.ingest(write_tar(tmp_path / "a.tar", contents))
        assert [r["key"] for r in rows(bench)] == ["squares/a", "squares/b", "squares/c"]
        assert [d["reason"] for n in bench.names for d in bench.dead("ingest", n)] == [Reason.KEY_REPEATED]
        check_counts(bench)

    def test_a_key_that_comes_again_later_is_dead(self, tmp_path):
        contents = [item for k in ("a", "b", "a", "c", "b") for item in members(k, ord(k)).items()]
        bench = Bench(tmp_path / "run", part_size=2)
        bench.ingest(write_tar(tmp_path / "a.tar", contents))
        assert [r["key"] for r in rows(bench)] == ["squares/a", "squares/b", "squares/c"]
        assert [(d["row"], d["reason"]) for n in bench.names for d in bench.dead("ingest", n)] == [
            (0, Reason.KEY_REPEATED),
            (0, Reason.KEY_REPEATED),
        ]


def test_as_many_captions_as_a_line_can_hold_are_gone_through_once():
    captions = [f"caption {number}" for number in range(200_000)]
    assert check_captions(captions * 2, 2_000) == (captions, {})


class TestCaptions:
    @pytest.mark.parametrize(
        ("captions", "kept", "lost"),
        [
            ([], [], {}),
            (["one", "two"], ["one", "two"], {}),
            ([" one\n", "one"], ["one"], {}),
            (["one", "One"], ["one", "One"], {}),
            ([""], [None], {0: Reason.CAPTION_EMPTY}),
            ([" \u00a0\u3000\n"], [None], {0: Reason.CAPTION_EMPTY}),
            ([None], [None], {0: Reason.CAPTION_NOT_TEXT}),
            ([3, "x", True], [None, "x", None], {0: Reason.CAPTION_NOT_TEXT, 2: Reason.CAPTION_NOT_TEXT}),
            ([{"en": "x"}, ["y"]], [None, None], {0: Reason.CAPTION_NOT_TEXT, 1: Reason.CAPTION_NOT_TEXT}),
            ([b"caf\xe9"], [None], {0: Reason.CAPTION_NOT_TEXT}),
            (["half \ud83d"], [None], {0: Reason.CAPTION_NOT_TEXT}),
            (["\udc00"], [None], {0: Reason.CAPTION_NOT_TEXT}),
            (["x" * 1_000_000], [None], {0: Reason.CAPTION_TOO_LONG}),
            (["x" * 2_000 + "  "], ["x" * 2_000], {}),
            (["👩‍👩‍👧 собака 狗 كلب"], ["👩‍👩‍👧 собака 狗 كلب"], {}),
            (["a", "", "a", "b"], ["a", None, "b"], {1: Reason.CAPTION_EMPTY}),
        ],
        ids=lambda value: ascii(value)[:40],
    )
    def test_a_bad_caption_leaves_a_hole(self, captions, kept, lost):
        texts, errors = check_captions(captions, 2_000)
        assert texts == kept
        assert {index: error.reason for index, error in errors.items()} == lost

    @given(
        st.lists(st.none() | st.text() | st.integers() | st.binary(max_size=3), max_size=6), st.integers(1, 9)
    )
    def test_holes_are_exactly_where_the_errors_are(self, captions, limit):
        texts, errors = check_captions(captions, limit)
        assert [i for i, text in enumerate(texts) if text is None] == sorted(errors)
        living = [text for text in texts if text is not None]
        assert len(set(living)) == len(living)
        assert all(text == text.strip() and 0 < len(text) <= limit and text.encode() for text in living)

    def test_a_bad_caption_drops_itself_and_not_its_example(self, ingest):
        bench = ingest(
            {
                "a": {"captions": ["good", "", 3, "also good", "good"]},
                "b": {},
                "c": b'{"caption": "\\ud83d"}',
                "d": {"caption": "d"},
            }
        )
        assert [r["captions"] for r in rows(bench)] == [["good", None, None, "also good"], [], [None], ["d"]]
        assert letters(bench) == [
            (0, "caption", "caption_empty"),
            (0, "caption", "caption_not_text"),
            (2, "caption", "caption_not_text"),
        ]
        assert [d["caption_index"] for d in bench.dead("ingest")] == [1, 2, 0]
        check_counts(bench)

    def test_captions_of_a_dead_example_count_nowhere(self, ingest):
        bench = ingest({"a": {"captions": ["x", ""], "labels": 3}, "b": {"caption": "y"}})
        assert letters(bench) == [(0, "example", "record_invalid")]
        check_counts(bench)


class TestLabels:
    @pytest.mark.parametrize(
        ("value", "labels"),
        [
            (None, []),
            ([], []),
            (["dog", "cat"], [("dog", None), ("cat", None)]),
            ([{"name": "dog"}], [("dog", None)]),
            ([{"category": "dog", "box": [1, 2, 3, 4]}], [("dog", [1, 2, 3, 4])]),
            ([{"label": "dog", "bbox": [1, 2, 3, 4]}], [("dog", [1, 2, 4, 6])]),
            ([{"tag": "dog", "box": None}], [("dog", None)]),
            ([{"name": 3, "category": "dog"}], [("dog", None)]),
            ([{"name": "dog", "box": [], "bbox": [1, 2, 3, 4]}], [("dog", [1, 2, 4, 6])]),
            ([{"name": "dog", "box": [0.5, 1e-3, 16777217, 4]}], [("dog", [0.5, 1e-3, 16777217, 4])]),
            ([{"name": "hot\u00a0dog"}], [("hot\u00a0dog", None)]),
        ],
        ids=lambda value: ascii(value)[:50],
    )
    def test_labels_are_names_perhaps_with_a_box(self, value, labels):
        assert parse_labels(value) == [{"name": name, "box": box} for name, box in labels]

    @pytest.mark.parametrize(
        "value",
        [
            "dog",
            {"name": "dog"},
            7,
            [7],
            [None],
            [["dog"]],
            [{}],
            [{"name": None}],
            ["\ud800"],
            [{"name": "\ud800"}],
            [{"name": "dog", "box": [1, 2, 3]}],
            [{"name": "dog", "box": "1234"}],
            [{"name": "dog", "box": {"x": 1}}],
            [{"name": "dog", "box": [1, 2, 3, "4"]}],
            [{"name": "dog", "box": [1, 2, 3, None]}],
            [{"name": "dog", "box": [1, 2, 3, float("nan")]}],
            [{"name": "dog", "box": [1, 2, 3, float("inf")]}],
            [{"name": "dog", "box": [1, 2, 3, 10**400]}],
        ],
        ids=lambda value: ascii(value)[:50],
    )
    def test_anything_else_is_bad_data(self, value):
        with pytest.raises(DataError) as caught:
            parse_labels(value)
        assert caught.value.reason is Reason.RECORD_INVALID

    def test_boxes_of_any_number_can_be_written(self, ingest):
        labels = [{"name": "red", "box": [16777217, 2**31 - 1, 0.1, -5]}, "blue"]
        bench = ingest({"a": {"labels": labels}, "b": {"labels": [{"name": "x", "box": [0, 0, 0, 10**400]}]}})
        (row,) = rows(bench)
        assert row["labels"][0]["box"] == np.array([16777217, 2**31 - 1, 0.1, -5], np.float32).tolist()
        assert letters(bench) == [(1, "example", "record_invalid")]

    def test_the_field_can_be_named_or_ignored(self, ingest, tmp_path):
        fields = {"a": {"objects": [{"category": "red"}], "labels": ["x"]}}
        assert rows(ingest(fields, labels="objects"))[0]["labels"][0]["name"] == "red"

    def test_without_a_field_labels_are_meta(self, ingest):
        (row,) = rows(ingest({"a": {"labels": 3}}, labels=None))
        assert row["labels"] == []
        assert json.loads(row["meta"]) == {"labels": 3}


class TestSplits:
    @pytest.mark.parametrize(
        ("fields", "changes", "split"),
        [
            ({"split": "train"}, {}, "train"),
            ({"split": "train2017"}, {}, "train"),
            ({"split": "restval"}, {}, "train"),
            ({"split": "val"}, {}, "val"),
            ({"split": "Validation"}, {}, "val"),
            ({"split": "test"}, {}, "test"),
            ({"split": "test2015"}, {}, "test"),
            ({"split": "train"}, {"split": "test"}, "test"),
            ({"split": "train"}, {"split": "val"}, "val"),
            ({"split": 3}, {}, "train"),
            ({}, {}, "train"),
        ],
        ids=str,
    )
    def test_the_input_decides_then_the_source_then_the_hash(self, ingest, fields, changes, split):
        (row,) = rows(ingest({"a": fields}, IngestConfig(val_fraction=0), **changes))
        assert row["split"] == split

    def test_copies_of_an_image_stay_together_and_the_fraction_holds(self, tmp_path):
        data = [(f"{i:04d}.png", encode(Image.new("RGB", (1, 1), (i % 150, 7, 9)))) for i in range(300)]
        bench = Bench(tmp_path / "run", part_size=300)
        bench.ingest(write_tar(tmp_path / "a.tar", data), IngestConfig(val_fraction=0.3))
        split = [r["split"] for r in rows(bench)]
        assert split[:150] == split[150:]
        assert 0.15 < split.count("val") / 300 < 0.45


class TestBadExamples:
    def test_each_bad_image_is_dead_with_its_reason_and_the_others_live(self, tmp_path):
        image = square_image(["red"], 1)
        gif, jpeg = io.BytesIO(), io.BytesIO()
        image.save(gif, "GIF")
        image.save(jpeg, "JPEG")
        contents = [
            ("a.jpg", b""),
            ("b.gif", gif.getvalue()),
            ("c.jpg", jpeg.getvalue()[:-300]),
            ("d.json", b"{}"),
            ("e.png", encode(Image.new("RGB", (100, 101)))),
            ("f.png", bytes(5_000)),
            ("g.jpg", jpeg.getvalue()),
            ("h.png", b"GIF89a, said the file"),
        ]
        bench = Bench(tmp_path / "run", part_size=3)
        config = IngestConfig(max_pixels=10_000, max_member_bytes=4_999)
        bench.ingest(write_tar(tmp_path / "a.tar", contents), config)
        assert [d["reason"] for n in bench.names for d in bench.dead("ingest", n)] == [
            "image_unreadable",
            "image_format",
            "image_truncated",
            "image_missing",
            "image_too_large",
            "member_too_large",
            "image_format",
        ]
        assert [r["key"] for r in rows(bench)] == ["squares/g"]
        check_counts(bench)

    @pytest.mark.parametrize("data", [b"", b"no tar at all" * 100], ids=["empty", "no tar"])
    def test_a_source_that_cannot_be_read_is_one_dead_example(self, tmp_path, data):
        (tmp_path / "a.tar").write_bytes(data)
        bench = Bench(tmp_path / "run")
        bench.ingest(tmp_path / "a.tar")
        assert letters(bench) == [(0, "example", "source_unreadable")]
        check_counts(bench)

    @pytest.mark.parametrize("part_size", [1, 3, 100])
    def test_a_cut_source_keeps_what_came_before_the_cut(self, tmp_path, part_size):
        path = write_squares(tmp_path / "whole.tar", 5)
        expected = Bench(tmp_path / "whole")
        expected.ingest(path)
        for cut in range(3_000, path.stat().st_size - 10_240, 411):
            (tmp_path / "a.tar").write_bytes(path.read_bytes()[:cut])
            bench = Bench(tmp_path / f"run{cut}", part_size=part_size)
            bench.ingest(tmp_path / "a.tar")
            # The example that the cut goes through may live without its caption.
            found = [(r["key"], r["sha256"]) for r in rows(bench)]
            assert found == [(r["key"], r["sha256"]) for r in rows(expected)][: len(found)]
            assert letters(bench)[-1][2] == "source_truncated"
            check_counts(bench)

    @pytest.mark.parametrize(
        "fields",
        [
            b'{"x": 1e999}',
            b'{"x": "\\ud83d", "y": {"\\udc00": NaN}}',
            b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}",
            b'{"labels": ["\\ud83d"]}',
            b'{"x": "\\u0000"}',
        ],
        ids=["infinity", "half characters", "40 levels", "half a label", "nul"],
    )
    def test_odd_json_never_crashes(self, ingest, fields):
        bench = ingest({"a": fields, "b": {}})
        assert "squares/b" in [r["key"] for r in rows(bench)]
        for row in rows(bench):
            json.loads(row["meta"], parse_constant=pytest.fail)
        check_counts(bench)

    def test_a_broken_record_of_a_member_whose_name_is_no_utf8(self, ingest):
        bench = ingest({"no\udc80utf8": b"{"})
        assert letters(bench) == [(0, "example", "record_invalid")]


def test_captions_of_an_image_stand_in_one_line_and_a_second_line_is_no_caption(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    lines = [{"image": "a.png", "captions": ["one", "two"]}, {"image": "a.png", "captions": ["three"]}]
    lines.append({"image": "a.png", "key": "b", "captions": ["four"]})
    (tmp_path / "s.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    bench = Bench(tmp_path / "run")
    bench.ingest(tmp_path / "s.jsonl", format="jsonl")
    assert [r["captions"] for r in rows(bench)] == [["one", "two"], ["four"]]
    assert letters(bench) == [(1, "example", "key_repeated")]
    (found,) = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    assert found.header.dropped == {"same_image": 1}


def test_json_lines_are_ingested_with_their_images(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PNG)
    lines = [{"image": "a.png", "caption": "x"}, {"image": "b.png"}, {"image": "a.png"}]
    (tmp_path / "s.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    bench = Bench(tmp_path / "run")
    bench.ingest(tmp_path / "s.jsonl", format="jsonl", images=str(tmp_path / "photos"))
    assert [r["key"] for r in rows(bench)] == ["squares/a"]
    assert letters(bench) == [(1, "example", "image_missing"), (2, "example", "key_repeated")]
    check_counts(bench)
