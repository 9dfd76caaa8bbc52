"""Samples with rare tags are shown more often, by their repeat factors."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagmill.models.training.order import DatasetSizes, Order
from tagmill.models.training.repeats import Repeats
from tagmill.tag_system.core.errors import ConfigError
from trainings import lines, trainer_of, weights

factors = st.lists(st.one_of(st.just(1.0), st.floats(1, 4, width=32)), min_size=1, max_size=40).map(
    lambda found: np.array(found, np.float32)
)


@given(factors, st.integers(0, 99), st.integers(1, 5), st.sampled_from([None, 1, 2]))
def test_a_turn_shows_each_sample_by_its_factor_rounded(found, seed, turns, window):
    shards = (len(found) // 2, 0, len(found) - len(found) // 2)
    order = Order([DatasetSizes(shards)], seed, window=window).repeated([found])
    assert order.length(0) == order.length(7)
    assert 0 <= found.sum(dtype=float) - order.length(0) < 1.01
    names = Counter()
    for turn in range(turns):
        epoch = order.epoch(turn)
        assert len(epoch) == order.length(turn)
        times = np.bincount(epoch.numbers, minlength=len(found))
        assert (times >= np.floor(found)).all()
        assert (times <= np.floor(found + 1e-4) + 1).all()
        names.update(zip(epoch.numbers.tolist(), epoch.turns.tolist(), strict=True))
    assert set(names.values()) == {1}


def test_fractions_are_rounded_by_chance_that_is_drawn_for_each_epoch():
    found = np.array([1.25] * 40 + [1.75] * 40, np.float32)
    order = Order([DatasetSizes((80,))], 3).repeated([found])
    epochs = [np.bincount(order.epoch(epoch).numbers, minlength=80) for epoch in range(400)]
    assert not np.array_equal(epochs[0], epochs[1])
    means = np.mean(epochs, axis=0)
    assert np.abs(means - found).max() < 0.1  # four standard deviations
    again = Order([DatasetSizes((80,))], 3).repeated([found])
    assert np.array_equal(again.epoch(5).numbers, order.epoch(5).numbers)
    assert Repeats(found).size == 120


def positives(trainer):
    """Positive classes by dataset and number, and the known ones, of all records."""
    loader = trainer.loader
    pairs = [pair for part in loader.targets(5) for pair in part]
    places = [(address.dataset, loader.number(address)) for address, _ in pairs]
    values = np.array([target.values * target.known for _, target in pairs])
    return places, values, np.array([target.known for _, target in pairs])


def test_factors_are_those_of_the_rarest_tag_and_are_kept(values_of, shards):
    said = []
    twice = [{"path": str(shards), "name": name} for name in "ab"]
    data = {"datasets": twice, "repeat_factor": {"threshold": 0.6, "limit": 1.3}}
    trainer = trainer_of(values_of(data=data), say=said.append)
    places, values, known = positives(trainer)
    wanted = np.clip(np.sqrt(0.6 / (values.sum(0) / known.sum(0))), 1, 1.3)
    expected = {place: max([1.0, *wanted[row > 0]]) for place, row in zip(places, values, strict=True)}
    with np.load(Path(trainer.out) / "repeat_factors.npz") as kept:
        found = {(at, number): value for at in (0, 1) for number, value in enumerate(kept[f"arr_{at}"])}
    assert found == pytest.approx(expected)
    assert len({round(float(value), 4) for value in found.values()}) > 2
    damaged = Path(trainer.out) / "repeat_factors.npz"
    damaged.write_bytes(damaged.read_bytes()[:500])
    assert trainer_of(values_of(data=data)).loader.steps() == trainer.loader.steps()
    (line,) = [line for line in said if line.startswith("repeat factors: ")]
    assert f" of {len(found)} samples have rare classes and come up to 1.3 times in an epoch" in line


def test_a_training_goes_on_in_the_middle_of_such_an_epoch_to_the_bit(values_of, shards):
    data = {
        "datasets": [{"path": str(shards), "name": "a"}, {"path": str(shards), "name": "b", "weight": 0.5}],
        "window": 1,
        "repeat_factor": {"threshold": 1.0},
    }
    whole, parts = values_of("whole", data=data), values_of("parts", data=data)
    expected = trainer_of(whole)
    plain = trainer_of(values_of("plain", data={**data, "repeat_factor": None}))
    assert expected.loader.steps() > plain.loader.steps()
    assert expected.run()
    assert not trainer_of(parts).run(until=expected.loader.steps() + 2)
    assert trainer_of(parts, resume=True).run()
    assert lines(parts) == lines(whole)
    assert len(lines(whole)) >= expected.loader.steps() + expected.loader.steps(1)
    ours, theirs = weights(parts), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(ConfigError, match="belongs to another sample order"):
        trainer_of(values_of("parts", data={**data, "repeat_factor": {"threshold": 0.5}}), resume=True)
