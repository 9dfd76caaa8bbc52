import io
import json

import pytest
from PIL import Image

from ingested import check_counts, letters, rows
from sources import encode, square_image, write_squares, write_tar
from stage_runs import Bench
from tagmill.transforms.ingest import IngestConfig


class TestBadExamples:
    def test_each_bad_image_is_dead_with_its_reason_and_the_others_live(self, tmp_path):
        image = square_image(["red"], 1)
        jp2, jpeg = io.BytesIO(), io.BytesIO()
        image.save(jp2, "JPEG2000")
        image.save(jpeg, "JPEG")
        contents = [
            ("a.jpg", b""),
            ("b.jp2", jp2.getvalue()),
            ("c.jpg", jpeg.getvalue()[:-300]),
            ("d.json", b"{}"),
            ("e.png", encode(Image.new("RGB", (100, 101)))),
            ("f.png", bytes(5_000)),
            ("g.jpg", jpeg.getvalue()),
            ("h.png", b"8BPS, said the file"),
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
