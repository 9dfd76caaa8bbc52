import json
import os
from contextlib import contextmanager
from pathlib import Path

import apache_beam as beam
import pytest

from ingested import check_counts, letters, rows
from sources import encode, members, square_image, write_squares, write_tar
from stage_runs import Bench, as_json, shared, source_task
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, InputChangedError, Reason
from tagmill.transforms import bitmaps, parts
from tagmill.transforms.duplicates import Duplicates, DuplicatesConfig
from tagmill.transforms.formats.webdataset import Webdataset
from tagmill.transforms.ingest import SCHEMA, Ingest, IngestConfig, source_record_uri
from tagmill.transforms.source_worker import SourceWorker, ingest_source
from tagmill.transforms.worker import Deal

PNG = members("k", 0)["k.png"]


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
    ("example", "changed"),
    [
        ({"url": "elsewhere"}, set()),
        ({"captions": ["a blue square"]}, {"captions"}),
        ({"captions": ["a red square", "another"]}, {"captions"}),
        ({"captions": ["a red square", ""]}, {"captions"}),
        ({"labels": ["blue"]}, {"labels"}),
        ({"labels": [{"name": "red", "box": [1, 2, 3, 4]}]}, {"labels"}),
        ({"split": "val"}, {"splits"}),
    ],
    ids=str,
)
def test_what_one_stage_needs_changes_nothing_for_the_others(tmp_path, example, changed):
    fields = {"captions": ["a red square"], "labels": ["red"], "split": "train"}
    one, other = (slices(tmp_path / str(n), f) for n, f in enumerate((fields, fields | example)))
    assert {name for name in one | other if one.get(name) != other.get(name)} == changed


def slices(folder, fields, **changes):
    values = {"key": "a", "image": PNG} | changes
    contents = [(f"{values['key']}.png", values["image"]), (f"{values['key']}.json", as_json(fields))]
    (part,) = Bench(folder / "run").ingest(write_tar(folder / "a.tar", contents))
    return part.header.slices


@pytest.mark.parametrize("changes", [{"image": members("k", 1)["k.png"]}, {"key": "b"}], ids=["image", "key"])
def test_another_image_or_key_is_another_picture_to_the_models_alone(tmp_path, changes):
    one, other = slices(tmp_path / "one", {}), slices(tmp_path / "other", {}, **changes)
    assert one.keys() == {"pixels", "captions", "labels", "splits"}
    assert {name for name in one if one[name] != other[name]} == {"pixels"}


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
    lost = [bitmaps.numbers(bench.part("ingest", n).header.lost) for n in bench.names]
    assert lost == [[0], [0, 1, 2, 3], []]
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


def test_a_source_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    @contextmanager
    def forbidden(_, uri):
        raise PermissionError(13, "Permission denied", uri)
        yield

    bench, path = Bench(tmp_path / "run"), write_squares(tmp_path / "a.tar", 2)
    monkeypatch.setattr(Webdataset, "open_read", forbidden)
    with pytest.raises(ConfigError, match=r"cannot read .*a\.tar: Permission denied"):
        bench.ingest(path)


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
            pipeline | beam.Create([source_task(stage, path)]) | Deal(SourceWorker(stage, folder))
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


def test_captions_of_an_image_stand_in_lines_that_follow_and_a_later_line_is_no_caption(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    lines = [{"image": "a.png", "captions": ["one"]}, {"image": "a.png", "captions": ["two"]}]
    lines.append({"image": "a.png", "key": "b", "captions": ["four"]})
    lines.append({"image": "a.png", "captions": ["three"]})
    (tmp_path / "s.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    bench = Bench(tmp_path / "run")
    bench.ingest(tmp_path / "s.jsonl", format="jsonl")
    assert [r["captions"] for r in rows(bench)] == [["one", "two"], ["four"]]
    assert letters(bench) == [(2, "example", "key_repeated")]
    (found,) = bench.run(Duplicates(DuplicatesConfig(), bench.shared))
    assert found.header.dropped == {"same_image": [1]}


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
