import pickle
import shutil

import pytest

from batches import same
from tagmill.tag_system.core.errors import ConfigError


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [1, 4])
def test_training_resumes_to_the_bit_wherever_it_stopped(shards, loader_of, workers, taken):
    whole = loader_of(shards)
    expected = [*whole, *whole]
    assert len(expected) == 6
    stopped = loader_of(shards, workers=workers)
    given, state = [], None
    while state is None:
        for batch in stopped:
            given.append(batch)
            if len(given) == taken:
                state = pickle.loads(pickle.dumps(stopped.state_dict()))
                break
    resumed = loader_of(shards, workers=workers)
    resumed.load_state_dict(state)
    given += list(resumed)
    while len(given) < 6:
        given += list(resumed)
    assert all(same(*pair) for pair in zip(given, expected, strict=True))
    assert resumed.unmapped == whole.unmapped


def test_a_state_taken_behind_the_last_batch_goes_on_with_the_next_epoch(shards, loader_of):
    loader = loader_of(shards)
    for _ in loader:
        state = loader.state_dict()
    resumed = loader_of(shards)
    resumed.load_state_dict(state)
    assert (resumed.steps_left(), list(resumed), resumed.epoch) == (0, [], 1)


def test_an_iteration_that_was_broken_off_goes_on(shards, loader_of):
    expected = list(loader_of(shards))
    loader = loader_of(shards, workers=1)
    given = [next(iter(loader))]
    assert all(same(*pair) for pair in zip([*given, *loader], expected, strict=True))


def test_another_order_is_not_resumed(shards, copied, loader_of):
    state = loader_of(shards, name="one").state_dict()
    for change in ({"seed": 1}, {"weight": 2}, {"window": 1}, {"name": "two"}):
        other = loader_of(shards, **({"name": "one"} | change))
        with pytest.raises(ConfigError, match="another sample order"):
            other.load_state_dict(state)
    loader_of(copied, name="one", batch_size=2, verify=True).load_state_dict(state)


def test_shards_may_move_between_two_runs(shards, tmp_path, loader_of):
    loader = loader_of(shards, name="squares")
    first = next(iter(loader))
    moved = shutil.copytree(shards, tmp_path / "elsewhere")
    resumed = loader_of(moved, name="squares")
    resumed.load_state_dict(loader.state_dict() | {"position": 0})
    assert same(next(iter(resumed)), first)
