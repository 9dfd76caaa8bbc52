import pytest
from hypothesis import given
from hypothesis import strategies as st

from square_models import SquareTagger
from tagmill.models.base import create
from tagmill.runners.commands.demo import embedded
from tagmill.transforms import on_pixels
from tagmill.transforms.batches import Fill, Load, plan

MOST = 64_000_000


def loads(**values):
    """Rows of the given values, one list an attribute; what is not given is the same for all."""
    count = len(next(iter(values.values())))
    same = {"size": [(8, 8)] * count, "held": [1] * count}
    columns = same | values
    return [Load(row, **{name: column[row] for name, column in columns.items()}) for row in range(count)]


@pytest.mark.parametrize(
    ("held", "limit", "batches"),
    [
        ([1] * 7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
        ([1], 3, [[0]]),
        ([], 3, []),
        ([MOST + 1, 1, 1, 1], 4, [[0], [1, 2, 3]]),
        ([1, MOST, 1, 1], 4, [[0, 1], [2, 3]]),
        ([MOST // 2] * 3 + [1], 4, [[0, 1, 2], [3]]),
    ],
    ids=str,
)
def test_batches_of_images_alike_are_consecutive_and_bounded_by_count_and_by_bytes(held, limit, batches):
    assert plan(loads(held=held), limit, MOST) == batches


def test_images_of_a_size_share_batches_and_so_do_texts_of_a_length():
    size = [(2, 1), (1, 2), (2, 1), (1, 2), (2, 1)]
    assert plan(loads(size=size), 2, MOST) == [[0, 2], [1, 3], [4]]
    tokens = [(5,), (90,), (6,), (80,)]
    assert plan(loads(tokens=tokens), 2, MOST) == [[0, 2], [1, 3]]


def test_rows_of_many_items_fill_each_others_forwards():
    assert plan(loads(items=[3, 5, 4, 4]), 8, MOST) == [[0, 1], [2, 3]]
    # Twenty are two forwards and a half, which four more fill.
    assert plan(loads(items=[20, 4]), 8, MOST) == [[0, 1]]


def test_rows_wait_for_their_batch_only_as_far_as_memory_goes():
    size = [(2, 1), (1, 2)] * 4
    near = loads(size=size, encoded=[MOST // 4] * 8)
    assert plan(near, 4, MOST) == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert plan(loads(size=size), 4, MOST, huge=[3]) == [[0, 2], [1], [3], [4, 6], [5, 7]]


@given(
    st.lists(
        st.tuples(st.sampled_from([(1, 2), (2, 1), None]), st.integers(1, 30), st.integers(0, 3)),
        max_size=60,
    ),
    st.integers(1, 16),
    st.data(),
)
def test_every_row_has_its_place_and_no_batch_has_room_for_another(rows, limit, data):
    given_loads = [Load(i, size, 1, items=n, tokens=(t,)) for i, (size, n, t) in enumerate(rows)]
    most = data.draw(st.sampled_from([3, MOST]))
    batches = plan(given_loads, limit, most)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    assert batches == sorted(batches)
    assert all(batch == sorted(batch) for batch in batches)
    for batch in batches:
        assert len({given_loads[row].size for row in batch}) == 1
        assert len(batch) <= most + 1
    fill = Fill()
    for batch in batches:
        fill.add([given_loads[row] for row in batch], limit)
    assert fill.items == sum(n for _, n, _ in rows)
    least = sum(-(-sum(n for s, n, _ in rows if s == size) // limit) for size in {s for s, _, _ in rows})
    assert least <= fill.forwards


def test_a_prepared_image_takes_the_room_of_its_numbers():
    assert on_pixels.room(SquareTagger(), 30, 20) == 3 * 600
    assert on_pixels.room(create("ram", {"path": str(embedded() / "tagger")}), 3000, 2000) == 12 * 128 * 128
