from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmill.models.training.order import DatasetSizes, Order, permutation

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=5).map(tuple)
weights = st.sampled_from([0.1, 0.3, 0.5, 1.0, 1.7, 2.0])
sources = st.lists(st.builds(DatasetSizes, sizes, weights), min_size=1, max_size=3)


def shown(order, epochs):
    """How often each (source, sample) was shown in the first epochs."""
    counts = Counter()
    for number in range(epochs):
        epoch = order.epoch(number)
        counts.update(zip(epoch.sources.tolist(), epoch.numbers.tolist(), strict=True))
    return counts


@given(st.integers(0, 300), st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_a_permutation_has_every_number_once(count, key):
    assert sorted(permutation(count, *key).tolist()) == list(range(count))


def test_an_order_stays_the_same_for_ever():
    assert permutation(10, 7, 1).tolist() == [7, 9, 6, 1, 4, 8, 3, 2, 5, 0]
    order = Order([DatasetSizes((3, 2)), DatasetSizes((4,), 0.5)], seed=3)
    epoch = order.epoch(1)
    assert epoch.sources.tolist() == [0, 0, 0, 1, 0, 0, 1]
    assert epoch.numbers.tolist() == [4, 3, 2, 1, 0, 1, 2]


def test_all_first_places_are_as_likely():
    firsts = Counter(int(permutation(5, seed)[0]) for seed in range(2000))
    assert all(300 < firsts[number] < 500 for number in range(5))


@given(sources, st.integers(0, 99), st.integers(1, 6), st.sampled_from([None, 1, 2]))
def test_samples_are_shown_evenly_and_as_often_as_their_weight_says(sources, seed, epochs, window):
    order = Order(sources, seed, window=window)
    counts = shown(order, epochs)
    assert sum(counts.values()) == sum(order.length(epoch) for epoch in range(epochs))
    for number, source in enumerate(sources):
        of_source = [counts[number, sample] for sample in range(source.size)]
        assert max(of_source) - min(of_source) <= 1
        assert abs(sum(of_source) - source.weight * source.size * epochs) < 1


@given(sources, st.integers(0, 5), st.sampled_from([None, 2]))
def test_a_showing_is_told_apart_by_its_turn(sources, epoch, window):
    found = Order(sources, 0, window=window).epoch(epoch)
    names = list(zip(found.sources.tolist(), found.numbers.tolist(), found.turns.tolist(), strict=True))
    assert len(set(names)) == len(names)


def test_with_weight_one_the_turn_is_the_epoch():
    order = Order([DatasetSizes((5,)), DatasetSizes((2, 2))], 0)
    assert [set(order.epoch(number).turns.tolist()) for number in range(3)] == [{0}, {1}, {2}]


def test_seed_and_epoch_change_the_order():
    pairs = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    orders = {(seed, epoch): Order([DatasetSizes((50,))], seed).epoch(epoch) for seed, epoch in pairs}
    assert len({tuple(order.numbers.tolist()) for order in orders.values()}) == 4


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 14), st.integers(0, 99))
def test_a_window_has_few_shards_in_use_at_a_time(counts, window, seed):
    numbers = Order([DatasetSizes(tuple(counts))], seed, window=window).epoch(0).numbers
    assert sorted(numbers.tolist()) == list(range(sum(counts)))
    shards = np.repeat(np.arange(len(counts)), counts)[numbers]
    places = [np.flatnonzero(shards == shard) for shard in range(len(counts))]
    for at in range(len(shards)):
        assert sum(found[0] <= at <= found[-1] for found in places) <= window + 1


def test_a_window_mixes_its_shards_from_the_first_sample_to_the_last():
    """Any stretch as long as a shard shows several, and the most of none that follow each other."""
    shards = Order([DatasetSizes((100,) * 30)], 0, window=8).epoch(0).numbers // 100
    for at in range(0, 3000, 100):
        assert len(set(shards[at : at + 100].tolist())) >= 6
    assert np.mean(shards[1:] == shards[:-1]) < 0.25


def test_a_mix_interleaves_its_sources():
    order = Order([DatasetSizes((300,)), DatasetSizes((100,))], 0).epoch(0)
    assert 5 < np.count_nonzero(order.sources[:40] == 1) < 18


@pytest.mark.parametrize("epoch", [0, 3])
def test_without_shuffle_each_sample_comes_once_in_the_order_of_the_shards(epoch):
    order = Order([DatasetSizes((3, 2), 2.0), DatasetSizes((2,))], 5, shuffle=False)
    assert order.epoch(epoch).numbers.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert order.epoch(epoch).sources.tolist() == [0] * 5 + [1] * 2
    assert set(order.epoch(epoch).turns.tolist()) == {0}
