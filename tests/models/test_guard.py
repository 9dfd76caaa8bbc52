import subprocess
import sys

import numpy as np
import pytest

from tagmill.models import guard
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason


class OutOfMemoryError(RuntimeError):
    """Has the class name that torch uses; the guard must not need torch."""


class Doubler:
    """A model that records its batches, fails as told, and else doubles numbers."""

    def __init__(self, *, room=100, error=None, bad=()):
        self.room, self.error, self.bad, self.batches = room, error, bad, []

    def predict(self, batch):
        self.batches.append(len(batch))
        if len(batch) > self.room:
            raise self.error
        for item in batch:
            if item in self.bad:
                raise self.error or KeyError(item)
        return [2 * item for item in batch]


def test_results_come_in_order_and_batches_are_full():
    model = Doubler()
    assert guard.predict(model.predict, range(7), 3) == [0, 2, 4, 6, 8, 10, 12]
    assert model.batches == [3, 3, 1]


def test_no_items_call_no_model():
    model = Doubler()
    assert guard.predict(model.predict, [], 3) == []
    assert model.batches == []


def test_rows_of_an_array_are_results():
    rows = guard.predict(lambda batch: np.ones((len(batch), 2)), range(3), 2)
    assert [row.tolist() for row in rows] == [[1, 1]] * 3


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("no room"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["python", "torch", "message", "cpu"],
)
def test_out_of_memory_halves_the_batch_and_keeps_it_small(error):
    model = Doubler(room=2, error=error)
    assert guard.predict(model.predict, range(16), 8) == [2 * i for i in range(16)]
    assert model.batches == [8, 4] + [2] * 8


def test_one_item_that_alone_exceeds_the_memory_is_dead():
    model = Doubler(error=MemoryError("9 GiB"), bad=[1])
    results = guard.predict(model.predict, range(3), 3)
    assert results[0] == 0
    assert results[2] == 4
    assert results[1].reason == Reason.MODEL_FAILED
    assert results[1].detail == "MemoryError: 9 GiB"


def test_one_bad_item_costs_only_itself():
    model = Doubler(bad=[2])
    results = guard.predict(model.predict, range(6), 4)
    assert [r for r in results if not isinstance(r, DataError)] == [0, 2, 6, 8, 10]
    assert isinstance(results[2], DataError)
    assert results[2].reason == Reason.MODEL_FAILED
    assert results[2].detail == "KeyError: 2"
    assert model.batches == [4, 1, 1, 1, 1, 2]


def test_more_failures_than_allowed_are_a_bug_and_raise_the_last_with_its_traceback():
    model = Doubler(bad=[1, 2, 3, 4])
    with pytest.raises(KeyError, match="4") as caught:
        guard.predict(model.predict, range(6), 8)
    assert any(entry.name == "predict" for entry in caught.traceback)
    assert len(guard.predict(model.predict, range(4), 8)) == 4


def test_a_model_that_says_that_an_item_is_bad_data_is_believed_and_not_counted():
    said = DataError(Reason.IMAGE_UNREADABLE, "too thin")
    model = Doubler(error=said, bad=range(8))
    assert guard.predict(model.predict, range(9), 4) == [said] * 8 + [16]


def test_a_wrong_number_of_results_crashes_and_names_the_model():
    class Broken:
        def predict(self, batch):
            return batch[1:]

    with pytest.raises(ValueError, match=r"Broken\.predict returned 2 results for 3 items"):
        guard.predict(Broken().predict, range(3), 8)


def test_a_bad_configuration_is_not_retried():
    model = Doubler(error=ConfigError("no weights"), bad=[0])
    with pytest.raises(ConfigError):
        guard.predict(model.predict, range(3), 8)
    assert model.batches == [3]


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="batch_size"):
        guard.predict(list, range(3), 0)


def test_the_models_import_no_model_library_until_they_load():
    modules = "guard, grounding_dino, open_clip, pretrained"
    code = (
        f"import sys; from tagmill.models import {modules}\n"
        "print([m for m in ('torch', 'transformers', 'open_clip') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
