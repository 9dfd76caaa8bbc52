"""Worker processes of the local runner: the same bytes, deaths, bugs, interruption."""

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from commands import start
from own_workers import Libraries, Numbers
from runs import current_folder, drive, parts_there, shard_bytes, squares_config, tagmill
from tagmill.pipeline.config import load_config
from tagmill.pipeline.job import Job
from tagmill.pipeline.run import Driver
from tagmill.runners.local import LocalEngine
from tagmill.transforms import parts
from tagmill.transforms.stage import PartTask
from troubled_models import digests_of


def children_of(pid: int) -> list[int]:
    """Processes of ours that a process has, or had: found by what they run."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [
        int(own) for own, parent, args in lines if int(parent) == pid and "tagmill.runners.worker" in args
    ]


def workers_of(pid: int) -> list[int]:
    """Worker processes of a driver: forks of the one process that it has."""
    (server,) = children_of(pid)
    return children_of(server)


def processes_of(pid: int) -> list[int]:
    """All processes of a driver."""
    (server,) = children_of(pid)
    return [server, *children_of(server)]


def await_end(pids: list[int]) -> None:
    """Wait until processes are gone."""
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.1)


def small(folder: Path, **changes: object) -> Path:
    """A run of few jobs."""
    changes = {"duplicates": None, "localize": None, "embed": None, "shards": {"size": 100}} | changes
    return squares_config(folder, {"a.tar": (20, 0)}, **changes)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("expected")
    drive(small(folder))
    return shard_bytes(folder / "run")


def test_a_worker_that_dies_costs_only_what_it_was_at(tmp_path, expected):
    (tmp_path / "deaths").mkdir()
    tagger = {
        "model": "troubled_models:DyingTagger",
        "options": {"folder": str(tmp_path / "deaths"), "times": 1},
    }
    result = tagmill("run", small(tmp_path, tag=tagger), "--workers", 2)
    assert result.returncode == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert re.fullmatch(
        r"WARNING \S+: tag: a worker process was killed by SIGKILL at \S+ \(attempt 1 of 3\)", line
    )
    assert "Traceback" not in result.stderr
    assert len(list((tmp_path / "deaths").iterdir())) == 1
    # Another model is another generation, but what it says is the same.
    assert shard_bytes(tmp_path / "run") == expected


def deadly(bad: list[str], by: str, **more: object) -> dict[str, object]:
    at = {"at": more.pop("at")} if "at" in more else {}
    options = {"bad": bad, "by": by, **at}
    return {"model": "troubled_models:DeadlyTagger", "options": options, "batch_size": 4, **more}


def without_seconds(run: Path, stage: str) -> list[tuple[list[dict[str, object]], object, object]]:
    """What the parts of a stage say: rows, and which died of what."""
    folder = current_folder(run, stage)
    found = [parts.read_part(str(path)) for path in sorted(folder.glob("*.parquet"))]
    return [(part.records, part.header.dead, part.header.digest) for part in found]


@pytest.mark.parametrize(
    ("workers", "by", "more"),
    [
        (1, "0", {}),
        (2, "SIGSEGV", {"at": "prepare"}),
        (1, "hang", {"timeout": 1}),
    ],
)
def test_an_image_that_kills_is_left_out_as_if_it_could_not_be_decoded(tmp_path, workers, by, more):
    config = small(tmp_path, max_dead_fraction=0.5)
    places = (6, 13) if by == "0" else (6,)  # each takes its time
    bad = [digests_of(tmp_path / "data" / "a.tar")[place] for place in places]
    small(tmp_path, tag=deadly(bad, "refuse"), max_dead_fraction=0.5)
    drive(config)
    expected_parts, expected_shards = without_seconds(tmp_path / "run", "tag"), shard_bytes(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")

    small(tmp_path, tag=deadly(bad, by, **more), max_dead_fraction=0.5)
    result = tagmill("run", config, "--workers", workers)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert len(re.findall(r"tag: squares/\S+, row \d+ of \S+, is left out", result.stderr)) == len(bad)
    assert without_seconds(tmp_path / "run", "tag") == expected_parts
    assert shard_bytes(tmp_path / "run") == expected_shards
    dead = current_folder(tmp_path / "run", "tag") / "dead"
    letters = [row for path in sorted(dead.iterdir()) for row in pq.read_table(path).to_pylist()]
    assert [letter["reason"] for letter in letters] == ["process_died"] * len(bad)
    cause = {"0": "ended itself with exit code 0", "hang": "a batch took longer than tag.timeout, 1.0 s"}
    assert all(cause.get(by, f"was killed by {by}") in letter["detail"] for letter in letters)
    assert drive(config).jobs == []


@pytest.mark.parametrize(
    ("tagger", "workers", "word"),
    [
        (deadly(["all"], "0"), 1, "ended itself with exit code 0, and not at one row alone"),
        (
            deadly([], "SIGKILL", at="load"),
            2,
            "was killed by SIGKILL while it got ready, 3 times; its model cannot",
        ),
        (
            {"model": "troubled_models:CrowdedTagger"},
            2,
            "was killed by SIGKILL at .*, 3 times; most often memory is short: use fewer --workers, or a",
        ),
    ],
    ids=["everything", "load", "crowd"],
)
def test_what_dies_whatever_it_is_given_ends_the_run_with_one_line(tmp_path, tagger, workers, word):
    result = tagmill("run", small(tmp_path, tag=tagger), "--workers", workers)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert re.match(f"tagmill: tag: (a|its) worker process {word}", last), result.stderr
    assert len([line for line in result.stderr.splitlines() if "attempt" in line]) <= 3 * workers
    assert not (tmp_path / "run" / "lease.json").exists()


def test_what_a_worker_knows_to_say_is_the_drivers_last_word(tmp_path):
    tagger = {"model": "troubled_models:MisplacedTagger", "options": {"home": os.getpid()}}
    result = tagmill("run", small(tmp_path, tag=tagger))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "tagmill: the weights lie on another disk; mount it"
    assert "Traceback" not in result.stderr


def test_a_bug_in_a_plug_in_ends_the_run_with_its_cause(tmp_path):
    config = small(tmp_path, tag={"model": "troubled_models:FailingTagger"})
    result = tagmill("run", config, "--workers", 2)
    assert result.returncode == 1
    assert 'KeyError: "a bug in a plug-in [while running' in result.stderr.replace("'a bug", '"a bug')
    assert not (tmp_path / "run" / "lease.json").exists()


def test_an_interruption_is_one_line_and_leaves_no_worker(tmp_path):
    begun = tmp_path / "begun"
    slow = {"model": "troubled_models:SlowTagger", "options": {"seconds": 60, "begun": str(begun)}}
    process = start("run", small(tmp_path, tag=slow), "--workers", 2)
    try:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.05)
        running = workers_of(process.pid)
        assert len(running) == 2
        everything = processes_of(process.pid)
        for pid in [process.pid, *everything]:  # as Ctrl-C in a terminal, which reaches them all
            os.kill(pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)  # an image takes as long, a batch five times that
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "tagmill: interrupted; run the same command to go on\n"
    for pid in everything:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (tmp_path / "run" / "lease.json").exists()


def test_a_driver_that_is_killed_leaves_no_worker_behind_and_is_quietly_gone_on_from(tmp_path, expected):
    slow = {"model": "troubled_models:SlowTagger", "options": {"seconds": 0.15}}
    config = small(tmp_path, tag=slow)
    process = start("run", config, "--workers", 2)
    run = tmp_path / "run"
    while len(parts_there(run, "tag")) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    everything = processes_of(process.pid)
    assert len(everything) == 1 + 2
    process.kill()
    process.communicate()
    await_end(everything)
    before = parts_there(run, "tag")
    result = tagmill("run", config, "--workers", 2)
    assert (result.returncode, result.stderr) == (0, "")
    assert before.items() <= parts_there(run, "tag").items()
    assert shard_bytes(run) == expected


def test_jobs_follow_each_other_with_new_processes_that_have_what_the_driver_has(tmp_path, monkeypatch):
    """Of one server, whose locks and threads no fork inherits: a fork that did would hang now and then."""
    others = set(children_of(os.getpid()))  # of engines of other tests
    engine = LocalEngine(2, PipelineOptions([]))
    (stage,) = [stage for stage in Driver(load_config(str(small(tmp_path)))).stages if stage.name == "tag"]
    (tmp_path / "done").mkdir()
    for number in range(5):
        folder = tmp_path / f"here-{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("OF_THIS_JOB", str(folder))
        tasks = [PartTask(f"{number}-{k}", "", {}, str(folder)) for k in range(4)]
        engine.execute(Job.of_worker(tasks, Numbers(stage, str(tmp_path / "done"))))
    done = [path.name.rsplit("-", 1) for path in (tmp_path / "done").iterdir()]
    assert {name for name, _ in done} == {f"{number}-{k}" for number in range(5) for k in range(4)}
    assert len({pid for _, pid in done}) == 5 * 2
    (server,) = set(children_of(os.getpid())) - others
    assert not children_of(server)
    engine.close()
    await_end([server])


def test_a_worker_that_parses_does_not_hold_torch(tmp_path):
    """spaCy would import it, which takes half a gigabyte."""
    config = load_config(str(small(tmp_path, parse={})))
    (stage,) = [stage for stage in Driver(config).stages if stage.name == "parse"]
    with closing(LocalEngine(1, PipelineOptions([]))) as engine:
        engine.execute(Job.of_worker([PartTask("held", "", {}, "")], Libraries(stage, str(tmp_path))))
    assert (tmp_path / "held").read_text() == "spacy"


def test_a_machine_without_a_temporary_folder_ends_a_run_in_one_line(tmp_path):
    process = start("run", small(tmp_path), "--workers", 1, most=0)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert re.fullmatch(
        r"tagmill: No usable temporary directory .*; free some space there, .*TMPDIR.*\n", err
    )


@pytest.mark.parametrize(("workers", "most"), [(1, 100), (2, 3_000), (2, 12_000)])
def test_a_full_disk_ends_a_run_in_one_line(tmp_path, workers, most):
    """Met by the driver at once, by a worker, and by a worker of the last stage."""
    off = dict.fromkeys(("duplicates", "localize", "embed"))
    config = squares_config(tmp_path, {"a.tar": (60, 0)}, part_size=100, shards={"size": 200}, **off)
    process = start("run", config, "--workers", workers, most=most)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert re.fullmatch(rf"tagmill: cannot (go on in|write) {tmp_path}\S+ ?[:(].*File too large.*\n", err)
    drive(config)
