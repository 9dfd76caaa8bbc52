"""What ingest takes from the fields of an example: captions, labels, the split."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ingested import check_counts, letters, rows
from sources import encode, write_tar
from stage_runs import Bench
from tagmill.tag_system.core.errors import Reason
from tagmill.transforms.given import check_captions, parse_labels
from tagmill.transforms.ingest import IngestConfig


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
        bench = ingest({"a": {"captions": ["x", ""], "labels": ["x"] * 1_001}, "b": {"caption": "y"}})
        assert letters(bench) == [(0, "example", "record_too_large")]
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
        assert parse_labels(value) == ([{"name": name, "box": box} for name, box in labels], [])

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
            [{"name": "dog", "box": [True, False, True, True]}],
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
    def test_anything_else_is_lost_and_the_others_are_not(self, value):
        kept, bad = parse_labels([*value, "cat"] if isinstance(value, list) else value)
        assert [label["name"] for label in kept] == (["cat"] if isinstance(value, list) else [])
        assert len(bad) == 1

    def test_boxes_of_any_number_can_be_written(self, ingest):
        labels = [{"name": "red", "box": [16777217, 2**31 - 1, 0.1, -5]}, "blue"]
        bench = ingest({"a": {"labels": labels}, "b": {"labels": [{"name": "x", "box": [0, 0, 0, 10**400]}]}})
        row = rows(bench)[0]
        assert row["labels"][0]["box"] == np.array([16777217, 2**31 - 1, 0.1, -5], np.float32).tolist()
        assert rows(bench)[1]["labels"] == []
        assert letters(bench) == [(1, "field", "label_invalid")]
        check_counts(bench)

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
            ({"split": " Test"}, {}, "test"),
            ({"split": "dev"}, {}, "val"),
            ({"split": ""}, {}, "train"),
            ({"split": "train"}, {"split": "test"}, "test"),
            ({"split": "train"}, {"split": "val"}, "val"),
            ({"split": None}, {}, "train"),
            ({}, {}, "train"),
        ],
        ids=str,
    )
    def test_the_input_decides_then_the_source_then_the_hash(self, ingest, fields, changes, split):
        (row,) = rows(ingest({"a": fields}, IngestConfig(val_fraction=0), **changes))
        assert row["split"] == split

    @pytest.mark.parametrize("split", ["holdout", 3, ["train"]], ids=str)
    def test_a_split_that_is_none_is_never_drawn(self, ingest, split):
        bench = ingest({"a": {"split": split, "caption": "words"}}, IngestConfig(val_fraction=0))
        (row,) = rows(bench)
        assert (row["split"], row["captions"]) == ("val", ["words"])
        assert letters(bench) == [(0, "field", "split_invalid")]
        assert "is not train, val or test" in str(bench.dead("ingest"))
        check_counts(bench)

    def test_a_number_that_is_no_json_is_lost_with_its_field_alone(self, ingest):
        bench = ingest({"a": b'{"caption": "words", "x": 1e999, "y": 2}'})
        (row,) = rows(bench)
        assert (row["captions"], row["meta"]) == (["words"], '{"y": 2}')
        assert letters(bench) == [(0, "field", "meta_invalid")]

    def test_copies_of_an_image_stay_together_and_the_fraction_holds(self, tmp_path):
        data = [(f"{i:04d}.png", encode(Image.new("RGB", (1, 1), (i % 150, 7, 9)))) for i in range(300)]
        bench = Bench(tmp_path / "run", part_size=300)
        bench.ingest(write_tar(tmp_path / "a.tar", data), IngestConfig(val_fraction=0.3))
        split = [r["split"] for r in rows(bench)]
        assert split[:150] == split[150:]
        assert 0.15 < split.count("val") / 300 < 0.45
