"""Shards and samples that are damaged, or meant to do damage."""

import os
import pickle
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import slow_store  # noqa: F401  so that fsspec knows it
from batches import ids
from tagmill.models.training import datasets
from tagmill.models.training.evaluation import LoadOptions, from_shards
from tagmill.tag_system.core.errors import DamageError


def test_damage_is_refused_before_the_first_step_if_asked(copied, overwrite, loader_of):
    overwrite(copied, b"no image")
    loader_of(copied)
    with pytest.raises(DamageError, match="does not match its sha256"):
        loader_of(copied, verify=True)
    with pytest.raises(DamageError, match="does not match its sha256"):
        loader_of(copied, verify=True, rank=0, world=2, batch_size=1)
    loader_of(copied, verify=True, rank=1, world=2, batch_size=1)  # its part is whole; rank 0 stops them all


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_samples_are_skipped_and_counted_by_reason(copied, overwrite, loader_of, workers):
    images = {0: b"\x89PNG\r\n\x1a\n", 4: b"8BPS"}
    bad = [overwrite(copied, data, member)["key"] for member, data in images.items()]
    bad.append(overwrite(copied, b"{}", 7)["key"])
    loader = loader_of(copied, batch_size=7, workers=workers)
    batches = list(loader)
    assert loader.skipped == {"image_unreadable": 1, "image_format": 1, "record_invalid": 1}
    assert [len(batch) for batch in batches] == [7, 7]
    assert sum(int(batch.valid.sum()) for batch in batches) == 11
    assert not {key for _, key in ids(batches)} & set(bad)
    assert all(not batch.known[~batch.valid].any() for batch in batches)
    places = [skipped.place for batch in batches for skipped in batch.skipped]
    assert all(place.startswith(f"{copied}/train-000000.tar@") for place in places)
    assert loader.state_dict()["skipped"] == {"image_unreadable": 1, "image_format": 1, "record_invalid": 1}


def test_images_over_the_cap_are_skipped(shards, loader_of):
    loader = loader_of(shards, batch_size=14, max_pixels=96 * 80 - 1)
    (batch,) = loader
    assert not batch.valid.any()
    assert loader.skipped == {"image_too_large": 14}


def test_a_shard_that_shrinks_under_a_training_costs_its_samples(copied, loader_of):
    loader = loader_of(copied, batch_size=14)
    os.truncate(copied / "train-000001.tar", 0)
    (batch,) = loader
    assert int(batch.valid.sum()) == 9
    assert loader.skipped == {"source_truncated": 5}


def test_images_that_the_index_pairs_with_other_records_are_skipped(copied, loader_of):
    index = copied / "train-000000.index.parquet"
    rows = pq.read_table(index)
    swapped = rows.take([2, 1, 0, *range(3, len(rows))])  # two images, each with the record of the other
    columns = {name: (swapped if name in ("offset", "size") else rows)[name] for name in rows.column_names}
    pq.write_table(pa.table(columns, schema=rows.schema), index)
    loader = loader_of(copied, batch_size=14)
    (batch,) = loader
    assert loader.skipped == {"image_changed": 2}
    assert batch.skipped[0].detail.endswith(": the image is not the one of its record")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_goes_away_is_one_line_in_training_and_in_evaluation(copied, loader_of, workers):
    """A process of the loader reads it, and torch would put its traceback into the message."""
    far = f"slow://{copied}"
    loader = loader_of(far, workers=workers)
    dataset, options = datasets.open_dataset(far, "train"), LoadOptions(4, workers)
    rows = from_shards([dataset], ["red"], lambda image: np.zeros(1), options, Counter())
    (copied / "train-000000.tar").unlink()
    said = r"^slow://\S+/train-000000.tar is not there any more: put it back, then go on$"
    with pytest.raises(DamageError, match=said):
        list(loader)
    loader.close()
    with pytest.raises(DamageError, match=said):
        list(rows)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickle_is_ever_opened(copied, overwrite, loader_of, tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    pickle.loads(trap).close()
    (tmp_path / "sprung").unlink()
    overwrite(copied, trap, 0)
    overwrite(copied, trap, 3)
    loader = loader_of(copied, batch_size=14)
    list(loader)
    assert loader.skipped == {"image_unreadable": 1, "record_invalid": 1}
    assert not (tmp_path / "sprung").exists()
