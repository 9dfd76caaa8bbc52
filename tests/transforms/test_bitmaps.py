import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmill.transforms import bitmaps

numbers = st.lists(st.integers(0, 3_000), max_size=50)


@given(numbers)
def test_the_numbers_of_a_set_come_back_ascending_and_once(found):
    assert bitmaps.numbers(bitmaps.of(found)) == sorted(set(found))
    assert bitmaps.of(found).bit_count() == len(set(found))


@given(numbers)
def test_a_set_comes_back_from_its_bytes(found):
    bits = bitmaps.of(found)
    data = bitmaps.dump(bits)
    assert bitmaps.load(data) == bits
    assert len(data) == (max(found) // 8 + 1 if found else 0)


@given(st.integers(0, 2**200))
def test_every_whole_number_is_a_set(bits):
    assert bitmaps.of(bitmaps.numbers(bits)) == bitmaps.load(bitmaps.dump(bits)) == bits


@given(st.binary(max_size=40))
def test_bytes_come_back_but_for_empty_ones_at_the_end(data):
    assert bitmaps.dump(bitmaps.load(data)) == data.rstrip(b"\0")


@given(numbers, numbers)
def test_sets_are_joined_and_parted_as_whole_numbers_are(one, other):
    both = bitmaps.of(one) | bitmaps.of(other), bitmaps.of(one) & ~bitmaps.of(other)
    assert list(map(bitmaps.numbers, both)) == [sorted({*one, *other}), sorted(set(one) - set(other))]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 63, 64, 65, 1_000])
def test_the_first_numbers(count):
    assert bitmaps.first(count) == bitmaps.of(range(count))
    assert bitmaps.numbers(bitmaps.first(count)) == list(range(count))


def test_what_lies_on_disk_never_changes():
    assert bitmaps.dump(bitmaps.of([0, 9, 10])) == b"\x01\x06"
    assert bitmaps.dump(0) == b""


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8], ids=lambda kind: kind.__name__)
def test_numpys_numbers_make_the_same_set(kind):
    assert bitmaps.of(np.array([3, 40, 70, 200], kind)) == bitmaps.of([3, 40, 70, 200])


def test_numbers_are_pythons_own():
    assert {type(number) for number in bitmaps.numbers(bitmaps.of([1, 70]))} == {int}


def test_a_number_below_zero_is_a_bug():
    with pytest.raises(ValueError, match="negative"):
        bitmaps.of([-1])
