"""Datasets that grow: what a night's input makes, what stays as it is, and what other runs lend."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from counted_models import calls, counted
from runs import (
    CountingEngine,
    Quiet,
    current_record,
    damaged,
    drive,
    plans,
    rows_of,
    samples,
    shard_bytes,
    squares_config,
    state,
    stop_before_recording,
)
from sources import encode, square_image, write_tar
from tagmill.pipeline.config import load_config
from tagmill.pipeline.job import Job
from tagmill.pipeline.run import Driver
from tagmill.tag_system.core.errors import ConfigError

NIGHTS = (("red", "green", "blue"), ("red", "yellow"), ("yellow", "blue", "green"))
"""What the squares of each night's tar show; yellow is new in the second."""

A_NIGHT = 10

PAPER = {"policy": {"trust_given": False, "rule": "paper", "paper": {"outlier_fraction": 0.3}}}
"""Drops the regions that lie far from their tag's centres."""

OF_CENTRES = {"verdict", "rule", "basis", "distance", "distance_rank"}
"""Columns of a decision that centres decide."""


def add_night(folder: Path, night: int) -> None:
    """Write a tar of squares, the more of them the later in it."""
    contents = []
    for number in range(night * A_NIGHT, (night + 1) * A_NIGHT):
        names = list(NIGHTS[night])[: 1 + number % len(NIGHTS[night])]
        contents.append((f"{number:06d}.png", encode(square_image(names, seed=number))))
        contents.append((f"{number:06d}.json", b'{"captions": [], "truth": []}'))
    write_tar(folder / "data" / f"{night}.tar", contents)


def growing(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    run = str(folder / "run")
    settings = counted(folder / "calls") | {"caption": None, "clean": PAPER}
    settings["cluster"] = {"from": run, "min_regions": 2}
    return squares_config(folder, {}, **(settings | changes))


def finished(run: Path) -> dict[str, tuple[int, int, str]]:
    """The state of all parts and shards: neither of the table of clusters nor of what is written of a run."""
    found = state(run)
    return {
        name: one
        for name, one in found.items()
        if name.endswith((".tar", ".parquet"))
        and not name.startswith(("report/", "cluster/"))
        and "/records/" not in name
        and "/superseded/" not in name
    }


def decided(run: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {(row["part"], row["row"], row["tag"]): row for row in rows_of(run, "clean")}


def test_a_night_makes_its_own_parts_and_leaves_all_others(tmp_path):
    run, log = tmp_path / "run", tmp_path / "calls"
    config = growing(tmp_path)
    for night in range(len(NIGHTS)):
        before = finished(run) if night else {}
        add_night(tmp_path, night)
        engine = drive(config)
        assert before.items() <= finished(run).items()
        assert calls(log)["Tagger"] == A_NIGHT
        new = A_NIGHT // 5
        made = {stage: len(engine.tasks(stage)) for stage in ("ingest", "tag", "localize", "embed", "clean")}
        assert made == {"ingest": 1, "tag": new, "localize": new, "embed": new, "clean": new}
        assert engine.tasks("shards") == [f"train-{night:06d}"]
        assert ("cluster" in engine.stages) == (night in (0, 1))  # yellow comes with the second
        assert damaged(run) == []
        assert drive(config).jobs == []

    one = growing(tmp_path / "one", run=str(tmp_path / "one" / "run"), cluster={"min_regions": 2})
    (tmp_path / "one" / "data").symlink_to(tmp_path / "data")
    drive(one)
    assert [s["key"] for s in samples(run)] == [s["key"] for s in samples(tmp_path / "one" / "run")]
    grown, whole = decided(run), decided(tmp_path / "one" / "run")
    assert grown.keys() == whole.keys()
    differing = set()
    for name, row in grown.items():
        other = whole[name]
        assert {column for column in row if row[column] != other[column]} <= OF_CENTRES
        if row["verdict"] != other["verdict"]:
            assert "outlier" in (row["rule"], other["rule"])
            differing.add(name)
    assert 0 < len(differing) < len(grown) / 4

    # Without `from`, everything is clustered anew: as in the one run.
    drive(config, "cluster.from=null")
    assert decided(run) == whole


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the first night."""
    folder = tmp_path_factory.mktemp("begun") / "it"
    folder.mkdir()
    add_night(folder, 0)
    drive(growing(folder))
    return folder


def copied(begun: Path, folder: Path) -> Path:
    """A copy of the run of the first night, and its config."""
    shutil.copytree(begun, folder)
    (folder / "calls").write_text("")
    return growing(folder)


class StoppingEngine(CountingEngine):
    """Stops as the clusters are to be made: the record of the old ones is gone by then."""

    def execute(self, job: Job) -> None:
        if job.name == "cluster":
            raise KeyboardInterrupt
        super().execute(job)


def test_a_night_that_stops_while_centres_are_made_goes_on_from_the_old_ones(begun, tmp_path):
    verdicts = []
    for name in ("before", "after", "never"):
        config, run = copied(begun, tmp_path / name), tmp_path / name / "run"
        before = finished(run)
        add_night(tmp_path / name, 1)
        if name == "before":
            with pytest.raises(KeyboardInterrupt):
                Driver(load_config(str(config))).run(StoppingEngine(), Quiet())
        elif name == "after":
            stop_before_recording(config, "cluster")
        drive(config)
        assert before.items() <= finished(run).items()
        assert damaged(run) == []
        verdicts.append((shard_bytes(run), decided(run)))
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_centres_of_another_run_are_taken_for_the_tags_that_it_has(begun, tmp_path):
    """And what it lacks keeps its own: yellow is in no part of the first night."""
    config, run = copied(begun, tmp_path / "it"), tmp_path / "it" / "run"
    add_night(tmp_path / "it", 1)
    drive(config)
    kept = current_record(run, "cluster").more["rows"]
    other = growing(tmp_path / "other", cluster={"from": str(begun / "run"), "min_regions": 3})
    shutil.copytree(tmp_path / "it" / "data", tmp_path / "other" / "data")
    drive(other)
    rows = current_record(tmp_path / "other" / "run", "cluster").more["rows"]
    assert rows == kept
    assert rows.keys() - current_record(begun / "run", "cluster").more["rows"].keys() == {"yellow"}
    add_night(tmp_path / "other", 2)
    drive(other)
    assert current_record(tmp_path / "other" / "run", "cluster").more["rows"] == rows

    for override, said in [
        ("embed.padding=0.5", "was made with another embed, so its table says nothing of this run"),
        (f"cluster.from={tmp_path}", f"cluster.from: {tmp_path} is not a run folder: it has no run.yaml"),
    ]:
        with pytest.raises(ConfigError, match=said):
            plans(other, override)
