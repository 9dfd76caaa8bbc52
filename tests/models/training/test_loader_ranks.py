"""A loader on each of several ranks."""

import multiprocessing
import os

import pytest
import torch
from torch import distributed

from batches import ids
from tagmill.models.training.loader import _check_agreement
from tagmill.tag_system.core.errors import ConfigError


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_one_order(shards, loader_of, world):
    alone = list(loader_of(shards, batch_size=6))
    ranks = [loader_of(shards, batch_size=6 // world, rank=rank, world=world) for rank in range(world)]
    assert {rank.steps() for rank in ranks} == {2}
    for whole, *parts in zip(alone, *ranks, strict=True):
        for place in range(6):
            part, row = parts[place % world], place // world
            assert part.ids[row] == whole.ids[place]
            assert torch.equal(part.images[row], whole.images[place])
            assert part.captions[row] == whole.captions[place]


def test_training_resumes_on_another_number_of_ranks(shards, loader_of):
    expected = ids(loader_of(shards, batch_size=2))
    first = [loader_of(shards, batch_size=2, rank=rank, world=2) for rank in range(2)]
    given = [name for pair in zip(*(next(iter(rank)).ids for rank in first), strict=True) for name in pair]
    resumed = loader_of(shards, batch_size=2)
    resumed.load_state_dict(first[0].state_dict())
    assert given + ids(resumed) == expected


@pytest.mark.parametrize(("world", "batch_size"), [(1, 4), (3, 2), (5, 1), (2, 7)])
def test_every_rank_takes_as_many_steps_and_padding_shows_each_sample_once(
    shards, loader_of, world, batch_size
):
    found = {"train": [], "val": []}
    for split, batches in found.items():
        for rank in range(world):
            loader = loader_of(shards, split, rank=rank, world=world, batch_size=batch_size)
            batches.append(list(loader))
            assert len(batches[-1]) == loader.steps()
        assert len({len(steps) for steps in batches}) == 1
        assert {len(batch) for steps in batches for batch in steps} == {batch_size}
    real = [
        name
        for steps in found["val"]
        for batch in steps
        for name, valid in zip(batch.ids, batch.valid.tolist(), strict=True)
        if valid
    ]
    assert len(real) == len(set(real)) == 8
    assert all(batch.valid.all() for steps in found["train"] for batch in steps)


def agree(rank, folder):
    """What a rank learns: nothing while all agree, then that one of them differs."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = distributed.FileStore(str(folder / "store"), 3)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=3)
    _check_agreement("ab" * 32)
    try:
        _check_agreement(("cd" if rank == 1 else "ab") * 32)
    except ConfigError as error:
        (folder / str(rank)).write_text(str(error))
    distributed.destroy_process_group()


def test_ranks_that_read_other_data_stop_before_the_first_step(tmp_path):
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=agree, args=(rank, tmp_path), daemon=True) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for number, rank in enumerate(ranks):
        rank.join(60)
        assert "ranks 1 read other data than rank 0" in (tmp_path / str(number)).read_text()
