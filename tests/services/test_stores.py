"""Runs whose inputs, run folder and shards lie in an object store: S3's by moto, Google's by its emulator."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from buckets import TARS, squares
from commands import tagmill
from faulty_proxy import KINDS
from runs import damaged, drive, shard_bytes, squares_config
from tagmill.tag_system.core import files

pytestmark = pytest.mark.services


FEW = {"duplicates": None, "localize": None, "embed": None}
"""Stages that are left out where any stage will do."""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The shards of a local run of the same examples through few stages."""
    folder = tmp_path_factory.mktemp("local")
    drive(squares_config(folder, TARS, inputs=squares(folder), **FEW))
    return shard_bytes(folder / "run")


def test_a_run_in_a_store_gives_the_same_shards(tmp_path, store):
    """Through all stages, in worker processes."""
    drive(squares_config(tmp_path / "local", TARS, inputs=squares(tmp_path / "local"), part_size=8))
    tagmill("run", store.config(tmp_path, "whole", part_size=8))
    assert store.shards(tmp_path, "whole") == shard_bytes(tmp_path / "local" / "run")
    assert damaged(store.uri("whole", "run")) == []


def test_more_names_than_a_page_holds_are_all_listed(store):
    names = [f"{number:05d}.json" for number in range(files.PAGE_NAMES + 30)]
    with ThreadPoolExecutor(files.THREADS) as pool:
        list(pool.map(lambda name: files.create_bytes(store.uri("many", name), b"{}"), names))
    assert files.list_names(store.uri("many")) == names
    assert files.walk(store.uri("many")) == names
    assert files.expand(store.uri("many", "*.json")) == [store.uri("many", name) for name in names]
    files.remove(store.uri("many"))
    assert files.list_names(store.uri("many")) == []


def test_of_eight_who_create_a_name_one_wins(store):
    for number in range(5):
        uri = store.uri("race", str(number))
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda who, uri=uri: files.create_bytes(uri, b"%d" % who), range(8)))
        assert won.count(True) == 1
        assert files.read_bytes(uri) == b"%d" % won.index(True)


def test_what_fails_now_and_then_is_asked_again(tmp_path, store, local):
    config = store.config(tmp_path, "faulty", **FEW)
    with store.proxy.failing(*KINDS, every=40) as faults:
        drive(config)
    assert set(faults.done) == set(KINDS)
    assert store.shards(tmp_path, "faulty") == local


def test_a_store_that_fails_for_good_is_a_line_and_nothing_half_written_is_believed(tmp_path, store, local):
    config = store.config(tmp_path, "broken", **FEW)
    with store.proxy.failing("503", match=b"broken/run/tag"):
        _, err = tagmill("run", config, "--workers", 0, code=2)
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: {store.scheme}://bucket does not do what it is asked: ")
    assert line.endswith("run the same command to go on")
    with store.proxy.failing("deaf", match=b"lease.json", most=1):
        tagmill("run", config, "--workers", 0)
    assert store.shards(tmp_path, "broken") == local
    assert damaged(store.uri("broken", "run")) == []
