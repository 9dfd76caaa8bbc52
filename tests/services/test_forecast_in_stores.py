"""What `plan --measure` tells of the requests to an object store, against those that the store gets."""

import json

import pytest

from buckets import squares
from commands import call
from runs import drive, squares_config
from tagmill.tag_system.core import files

pytestmark = pytest.mark.services

PRICES = {"thousand_reads": 0.5, "thousand_writes": 5.0}


def test_requests_are_told_from_samples_in_the_store(tmp_path, store):
    tars = {f"{number}.tar": (44, 44 * number) for number in range(3)}
    changes = {"part_size": 10, "prices": PRICES, "duplicates": None, "shards": {"size": 60}}
    config = squares_config(
        tmp_path, tars, run=store.uri("told", "run"), inputs=squares(store.uri("told")), **changes
    )
    fs, path = files.filesystem(store.uri("told", "data"))
    fs.put(f"{tmp_path}/data/", path, recursive=True)
    told = call("plan", config, "--measure", 40, "--scratch", store.uri("scratch"), "--json")[0]
    stages = json.loads(told)["stages"]
    assert files.walk(store.uri("scratch")) == []
    before = sum(store.proxy.requests.values())
    drive(config)
    came = sum(store.proxy.requests.values()) - before
    assert sum(sum(stage["requests"].values()) for stage in stages) == pytest.approx(came, rel=0.25)
    assert {stage["stage"] for stage in stages if stage["requests"]["reads"] > 0} >= {
        "tag",
        "clean",
        "shards",
    }
    shown = call("plan", config, "--measure", 40, "--scratch", store.uri("scratch"))[0]
    assert "Of object stores" in shown
    assert " USD." in shown
