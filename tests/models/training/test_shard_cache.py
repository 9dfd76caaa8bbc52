"""Copies of shards of a store: what a training reads does not depend on them; they keep to their limit."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from batches import same
from disks import full_disk
from services import wait_until
from slow_store import counted
from tagmill.models.training.shard_cache import CacheConfig, ShardCache, ShardUse
from tagmill.tag_system.core.errors import ConfigError, DamageError

SHARDS = 6


@pytest.fixture
def many(copied) -> Path:
    """The dataset with six shards of five samples, no two of the same bytes."""
    manifest = json.loads((copied / "manifest.json").read_text())
    first = next(one for one in manifest["shards"] if one["name"] == "train-000001")
    kept = [one for one in manifest["shards"] if one["split"] != "train"]
    for number in range(SHARDS):
        name = f"train-{number + 10:06d}"
        tar = (copied / "train-000001.tar").read_bytes() + bytes(512 * number)
        (copied / f"{name}.tar").write_bytes(tar)
        shutil.copy(copied / "train-000001.index.parquet", copied / f"{name}.index.parquet")
        digest = hashlib.sha256(tar).hexdigest()
        kept.append(first | {"name": name, "bytes": len(tar), "sha256": digest})
    (copied / "manifest.json").write_text(json.dumps(manifest | {"shards": kept}))
    return Path(copied)


@pytest.fixture
def cached(many, tmp_path, loader_of):
    """Makes loaders of the dataset in a store, with a cache for so many of its shards."""

    def make(shards: float = 100, **changes):
        size = (many / "train-000015.tar").stat().st_size  # the largest
        cache = {"folder": str(tmp_path / "cache"), "max_bytes": int(shards * size)}
        return loader_of(f"slow://{many}", name="squares", cache=cache, **changes)

    return make


def copies(tmp_path):
    return sorted((tmp_path / "cache").glob("*.tar"))


@pytest.mark.parametrize("workers", [0, 2])
def test_with_copies_the_same_is_read_and_in_the_end_nothing_from_the_store(
    many, cached, tmp_path, loader_of, workers
):
    plain = loader_of(many, name="squares", window=2)
    expected = [*plain, *plain]
    loader, given = cached(window=2, workers=workers), []
    for batch in loader:
        given.append(batch)
        wait_until(lambda: len(copies(tmp_path)) == SHARDS, "the shards come")
    assert all(hashlib.sha256(one.read_bytes()).hexdigest() == one.stem for one in copies(tmp_path))
    with counted() as requests:
        given += loader
    loader.close()
    assert requests == []  # of this process; its workers were forked from it
    assert len(given) == len(expected) == 14
    assert all(same(*pair) for pair in zip(given, expected, strict=True))


def test_copies_come_in_the_order_of_use_and_leave_when_there_is_need(many, tmp_path):
    """Two of six shards fit, and each is used beside the one before it and the one behind it."""
    tars = sorted(many.glob("train-00001*.tar"))
    names = [hashlib.sha256(tar.read_bytes()).hexdigest() for tar in tars]
    size = max(tar.stat().st_size for tar in tars)
    cache = ShardCache(CacheConfig(folder=str(tmp_path / "cache"), max_bytes=2 * size))
    uses = [
        ShardUse(f"slow://{tar}", name, tar.stat().st_size, 10 * at, 10 * at + 14)
        for at, (tar, name) in enumerate(zip(tars, names, strict=True))
    ]
    place = 0
    with cache.filling(uses[::-1], lambda: place):
        for at in range(SHARDS - 1):
            place = 10 * at + 5
            wanted = set(names[at : at + 2])
            wait_until(
                lambda wanted=wanted: {one.stem for one in copies(tmp_path)} == wanted, "a shard comes"
            )
    cache.check()


def test_a_limit_below_the_window_is_refused(cached):
    with pytest.raises(
        ConfigError, match=r"data.cache.max_bytes: \d+ bytes do not hold the shards of data.win"
    ):
        cached(3, window=2)


def of_another_run(tmp_path):
    (tmp_path / "cache").mkdir()
    for name in (".tmp-0123", f"{'0' * 64}.tar"):
        (tmp_path / "cache" / name).write_bytes(bytes(1 << 20))


def test_what_a_killed_run_and_other_runs_left_makes_room(cached, tmp_path):
    of_another_run(tmp_path)
    for _ in cached(SHARDS):
        wait_until(lambda: len(copies(tmp_path)) == SHARDS, "the shards come")
    assert len(os.listdir(tmp_path / "cache")) == 1 + SHARDS  # and the lock
    assert f"{'0' * 64}.tar" not in os.listdir(tmp_path / "cache")


def until_it_ends(loader):
    """Go through epochs until one fails."""
    for _ in range(200):
        list(loader)


def test_a_shard_of_other_bytes_ends_the_training(many, cached):
    with open(many / "train-000012.tar", "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"x")
    with pytest.raises(
        DamageError, match=r"train-000012.tar is not the shard that the manifest names: copy it"
    ):
        until_it_ends(cached())


def test_a_cache_that_cannot_be_written_is_a_line(cached, tmp_path):
    with (
        full_disk(),
        pytest.raises(ConfigError, match=r"data.cache: cannot write into .*File too large; make"),
    ):
        until_it_ends(cached())
    assert copies(tmp_path) == []
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("")
    with pytest.raises(ConfigError, match=r"data.cache: cannot write into .*File exists; name another"):
        cached()
