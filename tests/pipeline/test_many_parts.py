"""What a run of many parts asks of a store: how many requests, and that none of them is for each part."""

import io
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from runs import current_folder, damaged, drive, latest_note, squares_config
from slow_store import SlowFileSystem, counted
from tagmill.pipeline import current
from tagmill.pipeline.config import load_config
from tagmill.pipeline.records import content_digest, root_digest
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import find_example
from tagmill.pipeline.verify import verify
from tagmill.runners.commands import inspection
from tagmill.runners.commands.console import seconds_between_counts
from tagmill.tag_system.core import files, notes

SIZES = (2, 6)
"""Sources of a small run and of a larger one, which have two parts each."""


def config_of(folder: Path, sources: int) -> Path:
    """A run on a store of sources that lie there too."""
    squares = {"name": "squares", "format": "webdataset", "path": f"slow://{folder}/data/*.tar"}
    return squares_config(
        folder,
        {f"{number}.tar": (4, number * 4) for number in range(sources)},
        run=f"slow://{folder}/run",
        inputs=[squares | {"labels": "truth"}],
        part_size=2,
        shards={"size": 4},
        features={"model": "square_models:SquareTeacher"},
    )


@pytest.fixture(scope="module")
def runs_of_two_sizes(tmp_path_factory) -> list[Path]:
    """The configs of a small run and of a larger one, both whole."""
    made = [config_of(tmp_path_factory.mktemp("many") / "it", sources) for sources in SIZES]
    for config in made:
        drive(config)
    return made


def planned(config: Path) -> None:
    inspection.show_plan(Console(file=io.StringIO()), Driver(load_config(str(config))))


def looked_up(config: Path) -> None:
    find_example(RunFolder(f"slow://{config.parent}/run"), "squares/000006")


def status(config: Path) -> None:
    inspection.show_status(Console(file=io.StringIO()), f"slow://{config.parent}/run")


@pytest.mark.parametrize("ask", [planned, drive, status, looked_up], ids=lambda ask: ask.__name__)
def test_no_request_is_for_each_part(runs_of_two_sizes, ask: Callable[[Path], object]):
    found = []
    for config in runs_of_two_sizes:
        with counted() as requests:
            ask(config)
        found.append(Counter(kind for kind, _ in requests))
    assert found[0] == found[1]
    assert found[0].total() < 400


def test_what_is_verified_is_read_once(runs_of_two_sizes):
    config = runs_of_two_sizes[1]
    run = config.parent / "run"
    with counted() as requests:
        assert not any(problems for *_, problems in verify(RunFolder(f"slow://{run}")))
    asked = Counter(requests)
    made = [path for path in run.glob("*/*/**/*") if path.is_file() and path.parent.name != "records"]
    assert {asked["read", str(path)] for path in made if path.suffix != ".json"} == {1}
    assert len(made) > 100
    assert not any(asked["look", str(path)] for path in made)


def test_a_large_file_is_read_in_ranges(runs_of_two_sizes, monkeypatch):
    run = runs_of_two_sizes[0].parent / "run"
    monkeypatch.setattr(files, "RANGE_BYTES", 1000)
    with counted() as requests:
        assert damaged(f"slow://{run}") == []
    tar = sorted(run.glob("shards/*/*.tar"))[0]
    assert Counter(requests)["read", str(tar)] == -(-tar.stat().st_size // 1000)
    part = sorted(run.glob("clean/*/*.parquet"))[0]
    before = part.read_bytes()
    for place in (100, len(before) - 100):
        part.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        (problem,) = damaged(f"slow://{run}")
        assert part.name in problem
    part.write_bytes(before)


def test_status_opens_some_parts_of_a_stage_that_is_being_made(runs_of_two_sizes, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(runs_of_two_sizes[1].parent / "run", run)
    for stage in ("localize", "cluster", "shards"):  # as before their first record
        shutil.rmtree(next(run.glob(f"{stage}/*/records")))
        next(run.glob(f"{stage}/_STAGE*")).unlink()
    monkeypatch.setattr(current, "MOST_OPENED", 3)
    console = Console(file=io.StringIO(), width=200)
    with counted() as requests:
        inspection.show_status(console, f"slow://{run}")
    shown = console.file.getvalue()
    assert f"localize is not whole: its counts are of 3 of {2 * SIZES[1]} parts" in shown
    (line,) = [one for one in shown.splitlines() if one.startswith("localize ") and "whole" not in one]
    assert line.split()[2] == str(2 * SIZES[1])
    opened = {path for kind, path in requests if kind == "read" and path.startswith(f"{run}/localize/")}
    assert len(opened) == 3


def test_names_come_in_pages(runs_of_two_sizes, monkeypatch):
    config = runs_of_two_sizes[1]
    with counted() as whole:
        planned(config)
    monkeypatch.setattr(SlowFileSystem, "page", 5)
    with counted() as paged:
        planned(config)
    count = [sum(kind == "list" for kind, _ in requests) for requests in (whole, paged)]
    assert count[0] < count[1] < 6 * count[0]


@pytest.mark.parametrize("total", [10, 14_000, 140_000])
def test_progress_is_less_than_a_request_a_second(total):
    pages = -(-2 * total // files.PAGE_NAMES)
    assert pages / seconds_between_counts(total, on_store=True) < 1
    assert seconds_between_counts(total, on_store=False) < 1


def test_a_run_without_an_index_of_keys_is_looked_through_and_gets_one(tmp_path, caplog):
    config = config_of(tmp_path / "it", 1)
    drive(config)
    run = RunFolder(f"slow://{tmp_path}/it/run")
    tables = [
        path for what in ("keys", "sources") for path in tmp_path.glob(f"it/run/ingest/*/records/{what}-*")
    ]
    assert len(tables) == 2
    for path in tables:
        path.unlink()
    assert len(damaged(run.root)) == 2
    found = find_example(run, "squares/000003")
    assert "no index of keys" in caplog.text
    assert drive(config).jobs == []
    assert damaged(run.root) == []
    caplog.clear()
    assert find_example(run, "squares/000003") == found
    assert caplog.text == ""


def test_the_index_follows_the_sources(tmp_path):
    config = config_of(tmp_path / "it", 2)
    drive(config)
    (tmp_path / "it" / "data" / "0.tar").rename(tmp_path / "it" / "data" / "9.tar")
    config_of(tmp_path / "it", 4)
    (tmp_path / "it" / "data" / "0.tar").unlink()
    drive(config, accept_changes=True)
    run = RunFolder(f"slow://{tmp_path}/it/run")
    for number in range(16):
        assert find_example(run, f"squares/{number:06d}").ingested, number
    assert damaged(run.root) == []


def test_status_reads_a_summary_of_the_very_records(tmp_path):
    config = config_of(tmp_path / "it", 2)
    drive(config)
    run, summary = tmp_path / "it" / "run", tmp_path / "it" / "run" / "summary.json"

    def said() -> tuple[str, int]:
        console = Console(file=io.StringIO(), width=200)
        with counted() as requests:
            inspection.show_status(console, f"slow://{run}")
        whole = {path for kind, path in requests if kind == "read" and "/records/rows-" in path}
        return console.file.getvalue(), len(whole)

    shown, read = said()
    assert read == 0
    found = list(current.current_records(RunFolder(str(run))))
    assert root_digest(found) in shown
    assert content_digest(found) in shown

    ours = summary.read_bytes()
    other = notes.parse(ours, "")
    other["stages"]["tag"]["counts"]["example"]["in"] = 7
    summary.write_bytes(notes.dump({name: value for name, value in other.items() if name != "sha256"}))
    (problem,) = damaged(run)
    assert "summary.json says something else than the records" in problem
    summary.write_bytes(ours.replace(b'"in": 8', b'"in": 9', 1))
    (problem,) = damaged(run)
    assert "summary.json is damaged" in problem
    assert said() == (shown, len(found))

    summary.unlink()
    assert drive(config).jobs == []
    assert (summary.read_bytes(), said()) == (ours, (shown, 0))
    # Another record of the same name and size is another one.
    path = latest_note(current_folder(run, "tag") / "records")
    record = path.read_bytes()
    text = "{" + record.decode().partition('", ')[2]
    path.write_bytes(notes.seal_text(text.replace('"kind": "parts"', '"kind": "strap"')))
    assert len(path.read_bytes()) == len(record)
    assert said()[1] == len(found)
    path.write_bytes(record)
    # One of what was before counts for nothing, and what is not whole any more is said as ever.
    drive(config, "clean.policy.adaptive.weak_box=0.95")
    now = summary.read_bytes()
    assert said()[1] == 0
    assert said()[0] != shown
    summary.write_bytes(ours)
    assert said()[1] == len(found)
    summary.write_bytes(now)
    drive(config, "clean.policy.adaptive.weak_box=0.95", "tag.score_floor=0.5", until="tag")
    assert said()[1] == len(found)
