import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage_runs import example, ingest_part, part
from tagmill.tag_system.errors import DamageError, DataError, Reason
from tagmill.transforms import files, parts
from tagmill.transforms.parts import Dead, Inputs, Output

SCHEMA = pa.schema([pa.field("row", pa.int32(), nullable=False), pa.field("tag", pa.string())])


def output(rows=(), **changes):
    table = pa.Table.from_pylist([{"row": row, "tag": tag} for row, tag in rows], SCHEMA)
    return Output(table, **({"examples": 4} | changes))


def header(made, name="p-00000", gone=()):
    return parts.make_header("tag", 3, name, "finger", {"floor": 0.1}, made, gone, {"numpy": "2"})


def test_a_part_and_its_header_come_back_as_they_went(tmp_path):
    made = output([(0, "a"), (2, "b")], seconds={"model": 1.23456}, notes={"source": "ü", "n": [1, None]})
    written = header(made, gone=[1, 3])
    assert parts.commit(str(tmp_path), written, made)
    uri = parts.part_uri(str(tmp_path), "p-00000")
    assert parts.read_header(uri) == written
    read = parts.read_part(uri)
    assert read.header == written
    assert read.table.equals(made.table)
    assert parts.read_part(uri, ["tag"]).table.column_names == ["tag"]
    assert parts.read_part(uri, ["tag"]).header == written


def test_the_loser_of_a_commit_leaves_the_winners_part(tmp_path):
    first, second = output([(0, "first")]), output([(0, "second")])
    assert parts.commit(str(tmp_path), header(first), first)
    assert not parts.commit(str(tmp_path), header(second), second)
    assert parts.read_part(parts.part_uri(str(tmp_path), "p-00000")).records[0]["tag"] == "first"


def test_dead_letters_lie_beside_the_part_in_order(tmp_path):
    dead = [
        Dead.of(3, "k3", DataError(Reason.IMAGE_MISSING, "gone")),
        Dead.of(1, "k1", DataError(Reason.CAPTION_EMPTY, "second"), 2),
        Dead.of(1, "k1", DataError(Reason.CAPTION_EMPTY, "first"), 0),
    ]
    made = output(dead=dead, captions=5)
    parts.commit(str(tmp_path), header(made), made)
    found = parts.read_table(parts.dead_uri(str(tmp_path), "p-00000"))
    assert found.schema.equals(parts.DEAD_SCHEMA)
    assert [(d["row"], d["caption_index"], d["detail"]) for d in found.to_pylist()] == [
        (1, 0, "first"),
        (1, 2, "second"),
        (3, None, "gone"),
    ]
    assert files.list_names(str(tmp_path), parts.SUFFIX) == ["p-00000.parquet"]


def test_a_part_without_dead_letters_has_no_such_file(tmp_path):
    parts.commit(str(tmp_path), header(output()), output())
    assert files.list_folders(str(tmp_path)) == []


@pytest.mark.parametrize("detail", ["a \ud800 half", "x" * 10_000, "line\nend\0", "\U0001f600"], ids=ascii)
def test_any_detail_can_be_written(tmp_path, detail):
    made = output(dead=[Dead.of(0, "k", DataError(Reason.RECORD_INVALID, detail))])
    parts.commit(str(tmp_path), header(made), made)
    (found,) = parts.read_table(parts.dead_uri(str(tmp_path), "p-00000")).to_pylist()
    assert len(found["detail"]) <= 510
    assert found["detail"].startswith(detail[:2])


units = st.lists(st.sampled_from(["example", "caption"]), max_size=4)


@given(st.integers(4, 9), st.integers(4, 9), units, st.integers(0, 4))
def test_in_is_out_and_dropped_and_dead(examples, captions, dead, dropped):
    letters = [
        Dead(row, "k", Reason.MODEL_FAILED, "", unit, None if unit == "example" else 0)
        for row, unit in enumerate(dead)
    ]
    made = Output(SCHEMA.empty_table(), examples, captions, letters, dict.fromkeys(range(dropped), "same"))
    for unit, count in made.counts().items():
        assert count["in"] == count["out"] + count["dropped"] + count["dead"], unit
    assert sum(made.reasons().values()) == len(dead)
    assert header(made).dropped == ({"same": dropped} if dropped else {})


def test_the_digest_says_what_a_part_says():
    made = output([(0, "a")])
    same = header(output([(0, "a")], seconds={"model": 9.0}, notes={"x": 1}), name="q")
    assert header(made).digest == same.digest
    assert header(made).digest != header(output([(0, "b")])).digest
    assert header(made).digest != header(made, gone=[2]).digest


def test_a_file_that_is_no_part_is_damage(tmp_path):
    pq.write_table(pa.table({"row": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DamageError, match=r"x\.parquet is not a part"):
        parts.read_part(str(tmp_path / "x.parquet"))
    with pytest.raises(DamageError):
        parts.read_header(str(tmp_path / "x.parquet"))


@given(st.lists(st.integers(0, 12), max_size=20).map(sorted))
def test_records_of_a_row(rows):
    made = part("tag", SCHEMA, [{"row": row, "tag": str(place)} for place, row in enumerate(rows)])
    for row in range(14):
        expected = [str(place) for place, other in enumerate(rows) if other == row]
        assert [r["tag"] for r in made.of_row(row)] == expected


class TestInputs:
    def joined(self):
        ingest = ingest_part(example(0), example(2), example(3), gone=[1])
        duplicates = part("duplicates", SCHEMA, [{"row": 3, "tag": None}], gone=[1, 3])
        tag = part("tag", SCHEMA, [{"row": 0, "tag": "a"}, {"row": 2, "tag": "b"}], gone=[1, 3])
        return Inputs("p", {"ingest": ingest, "duplicates": duplicates, "tag": tag}, {}, "root")

    def test_only_rows_live_that_live_in_every_input(self):
        inputs = self.joined()
        assert inputs.rows == [0, 2]
        assert list(inputs.examples) == [0, 2]
        assert inputs.total_rows == 4

    def test_records_are_joined_by_row_and_not_by_place(self):
        inputs = self.joined()
        assert [r["tag"] for r in inputs.of_row("tag", 2)] == ["b"]
        assert inputs.key(2) == "squares/000002"

    def test_a_stage_that_is_switched_off_says_nothing(self):
        inputs = self.joined()
        assert "caption" not in inputs
        assert inputs.of_row("caption", 0) == []
        assert "tag" in inputs

    def test_gone_rows_grow_by_the_dead_and_the_dropped(self):
        inputs = self.joined()
        lost = output(dead=[Dead(0, "k", Reason.MODEL_FAILED, "")], dropped={2: "x"})
        assert inputs.gone_after(output()) == [1, 3]
        assert inputs.gone_after(lost) == [0, 1, 2, 3]

    def test_a_dead_caption_takes_no_example_with_it(self):
        lost = output(dead=[Dead(0, "k", Reason.CAPTION_EMPTY, "", "caption", 0)])
        assert self.joined().gone_after(lost) == [1, 3]

    def test_a_part_without_living_rows(self):
        inputs = Inputs("p", {"ingest": ingest_part(gone=[0, 1])}, {}, "root")
        assert inputs.rows == []
        assert inputs.of_row("ingest", 0) == []
        assert inputs.gone_after(output()) == [0, 1]


def test_the_footer_holds_plain_json(tmp_path):
    made = output([(0, "a")])
    parts.commit(str(tmp_path), header(made), made)
    metadata = pq.read_schema(tmp_path / "p-00000.parquet").metadata
    assert json.loads(metadata[parts.METADATA_KEY]) == asdict(header(made))
