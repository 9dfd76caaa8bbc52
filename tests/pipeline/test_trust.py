"""A short form of `make trust`: what is promised to do a run no harm, a few times each."""

import pytest

import trust
from limited import run_limited
from runs import damaged, drive, samples, squares_config


@pytest.mark.parametrize(("workers", "count"), [(0, 1), (2, 1)])
def test_a_killed_run_is_gone_on_with_to_the_same_bytes(tmp_path, workers, count):
    """In a process that has started no workers yet, for it forks."""
    found = run_limited("trust:killed_apart", str(tmp_path), workers, count)
    assert found["result"] == [count, []]


def test_no_hostile_input_harms_a_run_or_what_stands_beside_it(tmp_path):
    line = trust.hostile(tmp_path, every=60)
    assert line.wrong == []
    assert line.tried == 3


def test_a_run_without_a_single_example_is_whole_and_sound(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.tar").write_bytes(bytes(10_240))
    config = squares_config(tmp_path, {}, max_dead_fraction=1)
    drive(config)
    assert drive(config).jobs == []
    assert damaged(tmp_path / "run") == []
    assert samples(tmp_path / "run") == []
