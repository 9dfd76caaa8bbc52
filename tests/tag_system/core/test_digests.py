import io
import itertools
import string

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tagmill.tag_system.core.digests import table_digest, value_digest

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32()),
        pa.field("hash", pa.uint64()),
        pa.field("name", pa.string()),
        pa.field("bytes", pa.binary()),
        pa.field("flag", pa.bool_()),
        pa.field("score", pa.float32()),
        pa.field("half", pa.float16()),
        pa.field("words", pa.list_(pa.string())),
        pa.field("box", pa.list_(pa.float32(), 2)),
        pa.field("mentions", pa.list_(pa.struct([("tag", pa.string()), ("start", pa.int32())]))),
        pa.field("image", pa.struct([("uri", pa.string()), ("size", pa.int64())])),
    ]
)

text = st.text(st.characters(codec="utf-8"), max_size=4)
number = st.floats(width=16, allow_nan=False).map(lambda value: value + 0.0)  # -0.0 equals 0.0
mention = st.fixed_dictionaries({"tag": st.none() | text, "start": st.none() | st.integers(0, 9)})
record = st.fixed_dictionaries(
    {
        "row": st.none() | st.integers(0, 9),
        "hash": st.none() | st.integers(0, 2**64 - 1),
        "name": st.none() | text,
        "bytes": st.none() | st.binary(max_size=4),
        "flag": st.none() | st.booleans(),
        "score": st.none() | number,
        "half": st.none() | number.map(np.float16),
        "words": st.none() | st.lists(st.none() | text, max_size=3),
        "box": st.lists(number, min_size=2, max_size=2),
        "mentions": st.none() | st.lists(st.none() | mention, max_size=2),
        "image": st.none()
        | st.fixed_dictionaries({"uri": st.none() | text, "size": st.none() | st.integers(0, 9)}),
    }
)
records = st.lists(record, max_size=6)


def table(rows, schema=SCHEMA):
    return pa.Table.from_pylist(rows, schema)


def parquet(found, **options):
    sink = io.BytesIO()
    pq.write_table(found, sink, **options)
    return pq.read_table(io.BytesIO(sink.getvalue()))


@given(records, st.lists(st.integers(0, 6), max_size=3), st.permutations(range(len(SCHEMA))))
def test_chunks_column_order_and_parquet_change_nothing(rows, cuts, order):
    whole = table(rows)
    borders = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    chunks = [whole.slice(a, b - a) for a, b in itertools.pairwise(borders)]
    digest = table_digest(whole)
    assert table_digest(pa.concat_tables(chunks)) == digest
    assert table_digest(pa.concat_tables([table([c]) for c in rows]) if rows else whole) == digest
    assert table_digest(whole.select(list(order))) == digest
    assert table_digest(parquet(whole)) == digest
    assert table_digest(parquet(whole, compression="zstd", use_dictionary=False)) == digest


@given(records, records)
def test_digests_are_equal_exactly_for_equal_rows(a, b):
    one, other = table(a), table(b)
    assert (table_digest(one) == table_digest(other)) == one.equals(other)


@given(st.lists(record, min_size=1, max_size=4), st.sampled_from(SCHEMA.names), st.data())
def test_every_changed_value_changes_the_digest(rows, name, data):
    place = data.draw(st.integers(0, len(rows) - 1))
    changed = [dict(r) for r in rows]
    changed[place][name] = data.draw(record)[name]
    one, other = table(rows), table(changed)
    assume(not one.equals(other))
    assert table_digest(one) != table_digest(other)


@given(st.lists(st.none() | text, max_size=6))
def test_dictionary_encoding_and_wide_offsets_change_nothing(values):
    plain = pa.table({"tag": pa.array(values, pa.string())})
    digest = table_digest(plain)
    assert table_digest(pa.table({"tag": pa.array(values, pa.string()).dictionary_encode()})) == digest
    assert table_digest(pa.table({"tag": pa.array(values, pa.large_string())})) == digest


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (pa.int32(), [None], [0]),
        (pa.string(), [None], [""]),
        (pa.bool_(), [None], [False]),
        (pa.float32(), [None], [0.0]),
        (pa.float16(), [None], [np.float16(0)]),
        (pa.list_(pa.int32()), [None], [[]]),
        (pa.list_(pa.int32()), [[None]], [[0]]),
        (pa.list_(pa.int32()), [[1, 2], [3]], [[1], [2, 3]]),
        (pa.list_(pa.string()), [["a", "b"], ["c"]], [["a"], ["b", "c"]]),
        (pa.list_(pa.list_(pa.int32())), [[[1, 2], [3]]], [[[1], [2, 3]]]),
        (pa.string(), ["ab", "c"], ["a", "bc"]),
        (pa.string(), ["a", "b"], ["b", "a"]),
        (pa.struct([("a", pa.int32())]), [None], [{"a": None}]),
        (pa.list_(pa.float32(), 2), [None], [[0, 0]]),
    ],
    ids=lambda value: str(value),
)
def test_what_looks_alike_has_another_digest(kind, one, other):
    tables = [pa.table({"x": pa.array(values, kind)}) for values in (one, other)]
    assert table_digest(tables[0]) != table_digest(tables[1])


def test_type_and_name_of_a_column_count():
    values = pa.array([1, 2], pa.int32())
    digests = [
        table_digest(pa.table({"a": values})),
        table_digest(pa.table({"b": values})),
        table_digest(pa.table({"a": values.cast(pa.int64())})),
        table_digest(pa.table({"a": values, "b": values})),
        table_digest(pa.table({"a": pa.array([], pa.int32())})),
        table_digest(pa.table({"a": pa.array([], pa.string())})),
    ]
    assert len(set(digests)) == len(digests)


def test_values_under_a_null_do_not_count():
    valid = pa.array([True, False]).buffers()[1]
    pairs = [
        pa.Array.from_buffers(pa.int32(), 2, [valid, pa.py_buffer(np.array([1, hidden], np.int32))])
        for hidden in (5, 6)
    ]
    digests = {table_digest(pa.table({"x": array})) for array in pairs}
    assert len(digests) == 1


@pytest.mark.parametrize("kind", [pa.decimal128(12, 2), pa.date32()], ids=str)
def test_a_digest_is_never_made_of_addresses(kind):
    found = pa.table({"x": pa.array([1, 2], pa.int32()).cast(kind)})
    if pa.types.is_decimal(kind):
        with pytest.raises(TypeError, match="no digest"):
            table_digest(found)
    else:
        assert table_digest(found) == table_digest(parquet(found))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(string.printable, max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(text, values, max_size=4))
def test_the_order_of_keys_does_not_count_for_values(value):
    assert value_digest(value) == value_digest(dict(reversed(value.items())))
    assert value_digest(value) != value_digest({**value, "one key more": 1})
