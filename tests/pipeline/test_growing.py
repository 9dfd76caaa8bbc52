"""Datasets that grow: what a night's input makes, what stays as it is, and what other runs lend."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from commands import call
from counted_models import calls, counted
from input_runs import OFF
from runs import (
    CountingEngine,
    Quiet,
    current_folder,
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
from sources import encode, square_image, write_config, write_tar
from tagmill.pipeline.absent import check_absent
from tagmill.pipeline.config import load_config
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.job import Job
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.runners.commands.inspection import show_plan
from tagmill.runners.commands.launch import limited
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError

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


def test_a_run_says_what_came_since_it_was_last_whole(tmp_path):
    config = growing(tmp_path, **dict.fromkeys(("tag", "localize", "embed", "cluster")))
    add_night(tmp_path, 0)
    assert "last whole" not in call("run", config, "--workers", 0)[0]
    add_night(tmp_path, 1)
    with pytest.raises(KeyboardInterrupt):
        Driver(load_config(str(config))).run(StoppingEngine("clean"), Quiet())
    said = call("run", config, "--workers", 0)[0]
    came = "sources +1, parts +2, examples +10, shards +1; earlier shards: 1 as they were, 0 written again"
    assert f"since the run was last whole: {came}\n" in said
    assert "last whole" not in call("run", config, "--workers", 0)[0]
    assert damaged(tmp_path / "run") == []
    (tmp_path / "run" / "whole.json").write_text("{}")
    assert len(damaged(tmp_path / "run")) == 1


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
    """Stops as a stage is to be made; the record of an old table is gone by then."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def execute(self, job: Job) -> None:
        if job.name == self._stage:
            raise KeyboardInterrupt
        super().execute(job)


def test_a_night_that_stops_while_centres_are_made_goes_on_from_the_old_ones(begun, tmp_path):
    verdicts = []
    for name in ("before", "after"):
        config, run = copied(begun, tmp_path / name), tmp_path / name / "run"
        before = finished(run)
        add_night(tmp_path / name, 1)
        if name == "before":
            with pytest.raises(KeyboardInterrupt):
                Driver(load_config(str(config))).run(StoppingEngine("cluster"), Quiet())
        else:
            stop_before_recording(config, "cluster")
        drive(config)
        assert before.items() <= finished(run).items()
        assert damaged(run) == []
        verdicts.append((shard_bytes(run), decided(run)))
    assert verdicts[0] == verdicts[1]


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


def lending(begun: Path, folder: Path, **changes: Any) -> Path:
    """A run over a copy of the first night's data, whose times are others, that may take from its run."""
    (folder / "data").mkdir(parents=True)
    shutil.copyfile(begun / "data" / "0.tar", folder / "data" / "0.tar")
    settings = {"cluster": {"min_regions": 2}, "reuse": [str(begun / "run")]}
    return growing(folder, **(settings | changes))


@pytest.fixture
def lender(begun: Path, tmp_path: Path) -> Path:
    """A copy of the run of the first night."""
    shutil.copytree(begun, tmp_path / "lender")
    return tmp_path / "lender"


def planned(config: Path) -> str:
    console = Console(width=200)
    with console.capture() as shown:
        show_plan(console, Driver(load_config(str(config))))
    return shown.get()


def test_a_run_takes_from_another_what_is_just_what_it_would_make(lender, tmp_path):
    config, run = lending(lender, tmp_path / "it"), tmp_path / "it" / "run"
    said = planned(config)
    for stage, unit in [("ingest", "sources"), ("tag", "parts"), ("embed", "parts")]:
        assert f"{stage}: take 2 {unit} over from {lender / 'run'}, " in said
    assert drive(config).stages == ["cluster"]  # without `from` it depends on all regions
    assert calls(tmp_path / "it" / "calls") == {}
    assert shard_bytes(run) == shard_bytes(lender / "run")
    assert damaged(run) == []
    assert drive(config).jobs == []
    # Another rule, and one more night: nothing that was taken is asked about again.
    add_night(tmp_path / "it", 1)
    shutil.rmtree(lender)
    engine = drive(config, "reuse=[]", "clean.policy.rule=adaptive")
    assert len(engine.tasks("tag")) == 2
    assert damaged(run) == []


def test_what_another_run_holds_that_is_excluded_or_other_does_not_come(lender, tmp_path):
    held = samples(lender / "run")
    image, key = held[0]["sha256"], held[1]["key"]
    lent = growing(lender)
    source = json.loads(lent.read_text())["inputs"][0]
    (tmp_path / "out.txt").write_text(f"{image}\n{key}\n")
    changed = [source | {"path": str(tmp_path / "it/data/*.tar"), "exclude": str(tmp_path / "out.txt")}]
    config, run = lending(lender, tmp_path / "it", inputs=changed), tmp_path / "it" / "run"
    drive(config)
    left = [one["key"] for one in held if one["sha256"] != image and one["key"] != key]
    assert [one["key"] for one in samples(run)] == left
    assert calls(tmp_path / "it" / "calls") == {}
    assert damaged(run) == []
    list(map(files.remove, [path for path, _ in garbage(RunFolder(str(run)))]))
    assert [
        wrong for _, _, wrong in check_absent(RunFolder(str(run)), str(tmp_path / "out.txt")) if wrong
    ] == []

    # A third run takes it from there, and what it knows of the images that the key led to.
    third = lending(lender, tmp_path / "third", inputs=changed, reuse=[str(run)])
    copy = encode(square_image(list(NIGHTS[0])[:2], seed=1))
    write_tar(tmp_path / "it" / "data" / "1.tar", [("copy.png", copy)])
    drive(third)
    assert [one["key"] for one in samples(tmp_path / "third" / "run")] == left
    assert sum(calls(tmp_path / "third" / "calls").values()) == 0


@pytest.mark.parametrize("is_other", [False, True], ids=["equal", "other"])
def test_images_that_lie_elsewhere_are_compared(tmp_path, is_other):
    """Equal bytes of a file of lines say nothing of the images beside it."""
    for number, name in enumerate(["here", "there"]):
        folder = tmp_path / name
        folder.mkdir()
        image = square_image(["red"], seed=number if is_other else 0)
        (folder / "a.png").write_bytes(encode(image))
        (folder / "a.jsonl").write_text('{"image": "a.png", "captions": ["a red square"]}\n')
        os.utime(folder / "a.jsonl", (1, 1))
        inputs = [{"name": "x", "format": "jsonl", "path": str(folder / "a.jsonl")}]
        reuse = [str(tmp_path / "here" / "run")] * number
        config = write_config(folder, run=str(folder / "run"), inputs=inputs, reuse=reuse, **OFF)
    drive(tmp_path / "here" / "config.yaml")
    engine = drive(config)
    assert ("ingest" in engine.stages) == is_other
    assert damaged(tmp_path / "there" / "run") == []


def test_a_run_that_cannot_lend_is_named(lender, tmp_path):
    config = lending(lender, tmp_path / "it")
    for override, said in [
        (f"reuse=[{tmp_path}]", f"reuse: {tmp_path} is not a run folder: it has no run.yaml"),
        (f"reuse=[{tmp_path / 'it' / 'run'}]", "is this run itself; take it out"),
        ("part_size=4", "has part_size 5 and this run 4, so no part of it fits"),
    ]:
        with pytest.raises(ConfigError, match=said):
            plans(config, override)
    saved = lender / "run" / "run.yaml"
    whole = saved.read_text()
    saved.write_text(whole.replace("format: 3", "format: 2"))
    with pytest.raises(ConfigError, match="was made by another version of tagmill"):
        plans(config)
    saved.write_text("")
    with pytest.raises(DamageError, match=r"reuse: .*run\.yaml is damaged"):
        plans(config)
    saved.write_text(whole)

    victim = sorted(current_folder(lender / "run", "tag").glob("*.parquet"))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(DamageError, match="does not match its recorded digest; remove it and run again"):
        drive(config)
    victim.unlink()  # an unfinished run lends what it has
    engine = drive(config)
    assert engine.tasks("tag") == [victim.stem]
    assert damaged(tmp_path / "it" / "run") == []


def test_copies_of_images_come_along_and_those_of_what_is_excluded_are_blank(tmp_path):
    pictures = [encode(square_image(["red"], seed=number)) for number in range(3)]
    table = pa.table({"key": ["a", "b", "c"], "image": pictures, "caption": ["a red square"] * 3})
    pq.write_table(table, tmp_path / "x.parquet")
    source = {"name": "x", "format": "parquet", "path": str(tmp_path / "x.parquet")}
    source["options"] = {"copy_over": 1}
    (tmp_path / "out.txt").write_text("x/b\n")
    runs = []
    for name, changes in [("one", {}), ("two", {"exclude": str(tmp_path / "out.txt")})]:
        folder = tmp_path / name
        folder.mkdir()
        reuse = [str(run) for run in runs]
        config = write_config(folder, inputs=[source | changes], reuse=reuse, **OFF)
        engine = drive(config)
        runs.append(folder / "run")
    assert "ingest" not in engine.stages
    assert [sample["key"] for sample in samples(runs[1])] == ["x/a", "x/c"]
    (copied,) = current_folder(runs[1], "ingest").glob("*.images")
    assert [picture in copied.read_bytes() for picture in pictures] == [True, False, True]
    assert damaged(runs[0]) == damaged(runs[1]) == []


def test_a_trial_of_a_run_that_keeps_its_own_centres_does_not_look_for_them(tmp_path):
    trial = limited(load_config(str(growing(tmp_path))), 5)
    assert trial.cluster.kept_run == trial.run == f"{tmp_path / 'run'}-limit-5"
