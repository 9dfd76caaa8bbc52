import hashlib
import json
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage_runs import example, ingest_part, part
from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import equal_rows, row_digests, table_digest
from tagmill.tag_system.core.errors import DamageError, DataError, Reason
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.parts import Counts, Dead, Inputs, MadeBy, Output

SCHEMA = pa.schema([pa.field("row", pa.int32(), nullable=False), pa.field("tag", pa.string())])
MADE_BY = MadeBy("tag", 3, "p-00000", "finger", {"floor": 0.1}, {"numpy": "2"})
ROWS = [0, 1, 2, 3]
NAMES = pa.table({"row": [0, 2, 2], "name": ["a", "b", "c"]})


def output(rows=(), **changes):
    table = pa.Table.from_pylist([{"row": row, "tag": tag} for row, tag in rows], SCHEMA)
    return Output(table, **({"examples": 4} | changes))


def header(made, rows=ROWS):
    return parts.make_header(MADE_BY, made, rows)


def test_a_part_and_its_header_come_back_as_they_went(tmp_path):
    made = output(
        [(0, "a"), (2, "b")],
        captions=7,
        dropped={9: "same"},
        seconds={"model": 1.23456},
        notes={"source": "ü", "n": [1, None]},
        slices={"names": NAMES},
        tags=["a", "b"],
    )
    written = header(made, [0, 2, 9, 70])
    assert parts.commit(str(tmp_path), MADE_BY, made, [0, 2, 9, 70])
    uri = parts.part_uri(str(tmp_path), "p-00000")
    assert parts.read_header(uri) == parts.read_footer(uri).header == written
    assert (written.rows, written.lost) == (bitmaps.of([0, 2, 9, 70]), bitmaps.of([9]))
    assert (written.captions, written.dropped, written.dead) == (7, {"same": [9]}, {})
    assert (written.slices, written.tags) == ({"names": table_digest(NAMES)}, ["a", "b"])
    assert equal_rows(written.by_row["names"], row_digests(NAMES), range(3))
    assert written.seconds == {"model": 1.2346}
    assert {name: getattr(written, name) for name in vars(MADE_BY)} == vars(MADE_BY)
    read = parts.read_part(uri)
    assert read.header == written
    assert read.table.equals(made.table)
    assert parts.read_part(uri, ["tag"]).table.column_names == ["tag"]
    assert parts.read_part(uri, ["tag"]).header == written


def test_the_loser_of_a_commit_leaves_the_winners_part(tmp_path):
    first, second = output([(0, "first")]), output([(0, "second")])
    assert parts.commit(str(tmp_path), MADE_BY, first, ROWS)
    assert not parts.commit(str(tmp_path), MADE_BY, second, ROWS)
    assert parts.read_part(parts.part_uri(str(tmp_path), "p-00000")).records[0]["tag"] == "first"


def test_dead_letters_lie_beside_the_part_in_order(tmp_path):
    dead = [
        Dead.of(3, "k3", DataError(Reason.IMAGE_MISSING, "gone")),
        Dead.of(1, "k1", DataError(Reason.CAPTION_EMPTY, "second"), 2),
        Dead.of(1, "k1", DataError(Reason.CAPTION_EMPTY, "first"), 0),
    ]
    parts.commit(str(tmp_path), MADE_BY, output(dead=dead, captions=5), ROWS)
    found = parquet.read_table(parts.dead_uri(str(tmp_path), "p-00000"))
    assert found.schema.equals(parts.DEAD_SCHEMA)
    assert [(d["row"], d["caption_index"], d["detail"]) for d in found.to_pylist()] == [
        (1, 0, "first"),
        (1, 2, "second"),
        (3, None, "gone"),
    ]
    assert files.list_names(str(tmp_path), parts.SUFFIX) == ["p-00000.parquet"]
    read = parts.read_header(parts.part_uri(str(tmp_path), "p-00000"))
    assert (read.dead, read.dead_captions) == ({"image_missing": [3]}, {"caption_empty": [1, 1]})


def test_the_footer_says_what_lies_beside_a_part(tmp_path):
    dead = [Dead(1, "k", Reason.MODEL_FAILED, "")]
    parts.commit(str(tmp_path), MADE_BY, output(dead=dead, array=b"numbers"), ROWS)
    beside = {
        "dead": parts.dead_uri(str(tmp_path), "p-00000"),
        "array": parts.array_uri(str(tmp_path), "p-00000"),
    }
    found = {what: hashlib.sha256(files.read_bytes(uri)).hexdigest() for what, uri in beside.items()}
    assert parts.read_header(parts.part_uri(str(tmp_path), "p-00000")).files == found


def test_a_part_without_dead_letters_has_no_such_file(tmp_path):
    parts.commit(str(tmp_path), MADE_BY, output(), ROWS)
    assert files.list_folders(str(tmp_path)) == []
    assert files.list_names(str(tmp_path)) == ["p-00000.parquet"]
    assert parts.read_header(parts.part_uri(str(tmp_path), "p-00000")).files == {}


@pytest.mark.parametrize("detail", ["a \ud800 half", "x" * 10_000, "line\nend\0", "\U0001f600"], ids=ascii)
def test_any_detail_can_be_written(tmp_path, detail):
    made = output(dead=[Dead.of(0, "k", DataError(Reason.RECORD_INVALID, detail))])
    parts.commit(str(tmp_path), MADE_BY, made, ROWS)
    (found,) = parquet.read_table(parts.dead_uri(str(tmp_path), "p-00000")).to_pylist()
    assert len(found["detail"]) <= 510
    assert found["detail"].startswith(detail[:2])


units = st.lists(st.sampled_from(["example", "caption"]), max_size=4)


@given(
    st.lists(st.integers(0, 200), min_size=8, max_size=12, unique=True), st.integers(4, 9), units, st.data()
)
def test_in_is_out_and_dropped_and_dead(rows, captions, dead, data):
    letters = [
        Dead(row, "k", Reason.MODEL_FAILED, "", unit, None if unit == "example" else 0)
        for row, unit in zip(rows, dead, strict=False)
    ]
    dropped = data.draw(st.lists(st.sampled_from(rows[4:]), unique=True, max_size=4))
    made = Output(SCHEMA.empty_table(), len(rows), captions, letters, dict.fromkeys(dropped, "same"))
    found = header(made, rows)
    for unit in ("example", "caption"):
        count = found.counts.of(unit)
        assert count["in"] == count["out"] + count["dropped"] + count["dead"], unit
        assert count["dead"] == dead.count(unit)
    assert found.counts.of("example")["in"] == len(rows)
    assert found.counts.of("example")["out"] == (found.rows & ~found.lost).bit_count()
    assert found.counts.of("caption") == {
        "in": captions,
        "out": captions - dead.count("caption"),
        "dropped": 0,
        "dead": dead.count("caption"),
    }
    assert found.dropped == ({"same": sorted(dropped)} if dropped else {})
    dead_rows = [letter.row for letter in letters if letter.unit == "example"]
    assert bitmaps.numbers(found.lost) == sorted([*dropped, *dead_rows])


def test_counts_are_by_reason():
    dead = [
        Dead(3, "k", Reason.MODEL_FAILED, ""),
        Dead(0, "k", Reason.IMAGE_MISSING, ""),
        Dead(2, "k", Reason.MODEL_FAILED, ""),
        Dead(1, "k", Reason.CAPTION_EMPTY, "", "caption", 1),
        Dead(1, "k", Reason.CAPTION_EMPTY, "", "caption", 0),
    ]
    found = header(output(dead=dead, dropped={1: "same"}, captions=2))
    assert found.dead == {"image_missing": [0], "model_failed": [2, 3]}
    assert found.dead_captions == {"caption_empty": [1, 1]}
    counted = {"image_missing": 1, "model_failed": 2}
    assert found.counts == Counts(4, 2, {"same": 1}, counted, {"caption_empty": 2}, 2, 2.0)


class TestLost:
    def test_the_dead_and_the_dropped_are_lost(self):
        made = output(dead=[Dead(0, "k", Reason.MODEL_FAILED, "")], dropped={2: "x"})
        assert bitmaps.numbers(header(made).lost) == [0, 2]
        assert header(output()).lost == 0

    def test_a_dead_caption_takes_no_example_with_it(self):
        made = output(dead=[Dead(0, "k", Reason.CAPTION_EMPTY, "", "caption", 0)])
        assert header(made).lost == 0

    @pytest.mark.parametrize(
        "changes",
        [
            {"dropped": {4: "x"}},
            {"dead": [Dead(4, "k", Reason.MODEL_FAILED, "")]},
            {"dead": [Dead(4, "k", Reason.CAPTION_EMPTY, "", "caption", 0)]},
            {"dropped": {0: "x"}, "dead": [Dead(0, "k", Reason.MODEL_FAILED, "")]},
            {"examples": 3},
        ],
        ids=["dropped", "dead", "dead caption", "twice", "counted"],
    )
    def test_what_never_came_in_cannot_be_lost_or_counted_nor_lost_twice(self, changes):
        with pytest.raises(ValueError, match=r"tag/p-00000: (lost a row twice|counted 3 examples)"):
            header(output(**changes))


def test_the_digest_says_what_a_part_says():
    made = output([(0, "a")])
    same = output([(0, "a")], seconds={"model": 9.0}, notes={"x": 1}, slices={"s": NAMES}, tags=["a"])
    elsewhere = replace(MADE_BY, name="q", fingerprint="another", spec={}, libraries={})
    assert header(made).digest == parts.make_header(elsewhere, same, ROWS).digest
    assert header(made).digest != header(output([(0, "b")])).digest
    lost = [
        {"dropped": {2: "x"}},
        {"dropped": {2: "y"}},
        {"dropped": {3: "x"}},
        {"dead": [Dead(2, "k", Reason.MODEL_FAILED, "")]},
        {"dead": [Dead(2, "k", Reason.CAPTION_EMPTY, "", "caption", 0)]},
    ]
    digests = {header(output([(0, "a")], **changes)).digest for changes in lost}
    assert len(digests | {header(made).digest}) == len(lost) + 1


def test_a_file_that_is_no_part_is_damage(tmp_path):
    pq.write_table(pa.table({"row": [1]}), tmp_path / "x.parquet")
    for read in (parts.read_part, parts.read_header, parts.read_footer):
        with pytest.raises(DamageError, match=r"x\.parquet is not a part"):
            read(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    "changes", [{"rows": None}, {"rows": "no number"}, {"removed": [1]}, {"rows": [0]}], ids=str
)
def test_a_part_of_another_version_is_damage(tmp_path, changes):
    values = {**header(output()).to_json(), **changes}
    data = parquet.table_bytes(SCHEMA.empty_table(), {k: v for k, v in values.items() if v is not None})
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(DamageError, match=r"x\.parquet was not written by this version"):
        parts.read_header(str(tmp_path / "x.parquet"))


@given(st.lists(st.integers(0, 12), max_size=20).map(sorted))
def test_records_of_a_row(rows):
    made = part("tag", SCHEMA, [{"row": row, "tag": str(place)} for place, row in enumerate(rows)])
    for row in range(14):
        expected = [str(place) for place, other in enumerate(rows) if other == row]
        assert [r["tag"] for r in made.of_row(row)] == expected


class TestInputs:
    def joined(self, removed=(1, 3)):
        """Row 1 died in ingest, row 3 is a copy; `tag` was made when row 3 was none yet."""
        ingest = ingest_part(example(0), example(2), example(3), dropped=[1])
        duplicates = part("duplicates", SCHEMA, [{"row": 3, "tag": None}], examples=4, dropped=[3])
        tag = part("tag", SCHEMA, [{"row": 0, "tag": "a"}, {"row": 2, "tag": "b"}, {"row": 3, "tag": "c"}])
        read = {"ingest": ingest, "duplicates": duplicates, "tag": tag}
        return Inputs("p", read, {}, "root", bitmaps.of(removed))

    def test_only_rows_live_that_no_earlier_stage_took_out(self):
        inputs = self.joined()
        assert inputs.rows == [0, 2]
        assert list(inputs.examples) == [0, 2]

    def test_who_lives_is_not_for_the_parts_to_say(self):
        assert self.joined(removed=()).rows == [0, 2, 3]
        assert self.joined(removed=[0, 1, 2]).rows == [3]

    @given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 12)))
    def test_the_rows_are_those_of_ingest_but_for_the_removed(self, rows, removed):
        ingest = ingest_part(*map(example, sorted(rows)))
        inputs = Inputs("p", {"ingest": ingest}, {}, "", bitmaps.of(removed))
        assert inputs.rows == sorted(rows - removed)

    def test_records_are_joined_by_row_and_not_by_place(self):
        inputs = self.joined()
        assert [r["tag"] for r in inputs.of_row("tag", 2)] == ["b"]
        assert inputs.key(2) == "squares/000002"

    def test_a_stage_that_is_switched_off_says_nothing(self):
        inputs = self.joined()
        assert "caption" not in inputs
        assert inputs.of_row("caption", 0) == []
        assert "tag" in inputs

    def test_a_part_without_living_rows(self):
        dead = Inputs("p", {"ingest": ingest_part(dropped=[0, 1])}, {}, "root")
        filtered = Inputs("p", {"ingest": ingest_part(example(0))}, {}, "root", bitmaps.of([0]))
        for inputs in (dead, filtered):
            assert inputs.rows == []
            assert inputs.examples == {}
        assert dead.of_row("ingest", 0) == []


def test_the_footer_holds_plain_json(tmp_path):
    made = output([(0, "a")])
    parts.commit(str(tmp_path), MADE_BY, made, ROWS)
    metadata = pq.read_schema(tmp_path / "p-00000.parquet").metadata
    found = json.loads(metadata[parquet.METADATA_KEY])
    assert found == header(made).to_json() == asdict(header(made)) | {"rows": "0f"}


def committed(folder, **changes):
    """A committed part with a dead letter: its uri and that of its dead letters."""
    dead = [Dead(3, "k3", Reason.IMAGE_MISSING, "gone")]
    parts.commit(str(folder), MADE_BY, output([(0, "a"), (2, "b")], dead=dead, **changes), ROWS)
    return parts.part_uri(str(folder), "p-00000"), parts.dead_uri(str(folder), "p-00000")


LARGE = {"notes": {"text": "x" * (parquet.TAIL_BYTES + 1)}}


class TestSeal:
    @pytest.mark.parametrize("changes", [{}, LARGE], ids=["small", "a large footer"])
    def test_a_look_at_the_footer_tells_the_seal_of_the_whole_file(self, tmp_path, changes):
        for uri in committed(tmp_path, **changes):
            data = files.read_bytes(uri)
            tail = parquet.read_tail(uri)
            assert (tail.seal, tail.size) == (parquet.seal(data), len(data))
        footer = parts.read_footer(parts.part_uri(str(tmp_path), "p-00000"))
        part_data = files.read_bytes(parts.part_uri(str(tmp_path), "p-00000"))
        assert (footer.seal, footer.size) == (parquet.seal(part_data), len(part_data))
        assert footer.header == parts.read_part(parts.part_uri(str(tmp_path), "p-00000")).header

    def test_no_more_is_read_than_the_footer_needs(self, tmp_path, monkeypatch):
        counts = []
        read = files.read_tail
        monkeypatch.setattr(files, "read_tail", lambda uri, n: (counts.append(n), read(uri, n))[1])
        parts.read_footer(committed(tmp_path / "small")[0])
        assert counts == [parquet.TAIL_BYTES]
        large, _ = committed(tmp_path / "large", **LARGE)
        counts.clear()
        parts.read_footer(large)
        footer = parquet._footer_length(files.read_bytes(large))
        assert counts == [parquet.TAIL_BYTES, footer]

    @pytest.mark.parametrize("spare", [-1, 0, 1], ids=["too short", "as long", "longer"])
    def test_a_first_look_about_as_long_as_the_footer(self, tmp_path, monkeypatch, spare):
        uri, _ = committed(tmp_path)
        data = files.read_bytes(uri)
        monkeypatch.setattr(parquet, "TAIL_BYTES", parquet._footer_length(data) + spare)
        assert parts.read_footer(uri).seal == parquet.seal(data)

    @pytest.mark.parametrize("rows", [0, 1, 5_000])
    def test_tables_of_any_length_and_without_a_header(self, tmp_path, rows):
        table = pa.table({"row": list(range(rows)), "tag": [str(row) for row in range(rows)]})
        data = parquet.table_bytes(table)
        (tmp_path / "x.parquet").write_bytes(data)
        assert parquet.read_tail(str(tmp_path / "x.parquet")).seal == parquet.seal(data)

    @pytest.mark.parametrize("which", [0, 1], ids=["part", "dead letters"])
    def test_no_flipped_bit_keeps_the_seal(self, tmp_path, which):
        data = files.read_bytes(committed(tmp_path)[which])
        sealed = parquet.seal(data)
        refused = 0
        for place in range(len(data)):
            for bit in range(8):
                try:
                    assert parquet.seal(flipped(data, place, bit)) != sealed, (place, bit)
                except ValueError:
                    refused += 1
        assert refused == 4 * 8  # the closing mark

    def test_no_cut_and_no_lengthened_file_keeps_the_seal(self, tmp_path):
        data = files.read_bytes(committed(tmp_path)[0])
        sealed = parquet.seal(data)
        others = [*(data[:end] for end in range(len(data))), *(data[n:] for n in range(1, len(data)))]
        others += [data + data, data + b"\0", b"\0" + data, data[:-8] + b"\0" + data[-8:]]
        for other in others:
            try:
                assert parquet.seal(other) != sealed
            except ValueError:
                assert not other.endswith(b"PAR1")

    def test_a_damaged_footer_is_a_value_error_or_has_another_seal(self, tmp_path):
        uri, _ = committed(tmp_path)
        data = files.read_bytes(uri)
        sealed, start = parquet.seal(data), len(data) - parquet._footer_length(data)
        seen = set()
        for place in range(start, len(data)):
            damaged = str(tmp_path / "x.parquet")
            files.replace_bytes(damaged, flipped(data, place, place % 8))
            try:
                assert parts.read_footer(damaged).seal != sealed, place
                seen.add("another seal")
            except (ValueError, DamageError) as error:
                seen.add(type(error).__name__)
        assert seen >= {"another seal", "ValueError", "DamageError"}

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 3, b"no parquet at all"], ids=str)
    def test_a_file_without_a_footer_is_a_value_error(self, tmp_path, data):
        (tmp_path / "x.parquet").write_bytes(data)
        with pytest.raises(ValueError, match=r"footer|Parquet"):
            parts.read_footer(str(tmp_path / "x.parquet"))

    def test_a_missing_file_is_no_damage(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            parts.read_footer(str(tmp_path / "x.parquet"))


def flipped(data, place, bit):
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
