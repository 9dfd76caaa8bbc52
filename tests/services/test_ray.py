"""Runs on a real Ray cluster of this machine: the same bytes, whatever dies, and nothing left behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

from commands import environment, start
from runs import Quiet, current_folder, drive, parts_there, shard_bytes, squares_config
from tagmill.pipeline.config import load_config
from tagmill.pipeline.job import Job
from tagmill.pipeline.run import Driver
from tagmill.runners.ray_engine import RayEngine
from tagmill.runners.ray_flags import RayFlags, RayHints
from troubled_models import digests_of

pytestmark = pytest.mark.services

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
ACTOR = "ray::TaskActor"


def small(folder: Path, **changes: object) -> Path:
    """A run of few jobs, of five parts."""
    changes = {"duplicates": None, "localize": None, "embed": None, "part_size": 4} | changes
    return squares_config(folder, {"a.tar": (20, 0)}, **changes)


def troubled(name: str, **options: object) -> dict[str, object]:
    return {"model": f"troubled_models:{name}", "options": options}


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    head = {**NODE, "num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def cluster(machines: Cluster) -> Cluster:
    """A head that does no work, and two nodes of a core each."""
    for _ in range(2 - len(machines.worker_nodes)):
        machines.add_node(**NODE)
    return machines


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("expected")
    drive(small(folder))
    return shard_bytes(folder / "run")


def launch(cluster: Cluster, config: Path, *options: object) -> "subprocess.Popen[str]":
    return start("run", config, "--runner", "ray", *options, "--", f"--address={cluster.address}")


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the end; gives the exit code and standard error."""
    try:
        _, err = process.communicate(timeout=250)
    finally:
        process.kill()
    return process.returncode, err


def await_that(holds: Callable[[], Any], process: "subprocess.Popen[str] | None" = None) -> None:
    deadline = time.monotonic() + 100
    while not holds():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def actors(of: Iterable[psutil.Process] | None = None) -> list[psutil.Process]:
    """The actors among some processes, or among all of this machine."""
    found = []
    for process in psutil.process_iter() if of is None else of:
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(ACTOR):
                found.append(process)
    return found


def test_a_cluster_makes_what_one_process_makes(tmp_path, cluster):
    """Of all kinds of stages."""
    config = squares_config(tmp_path, {"a.tar": (12, 0)}, part_size=4)
    drive(config)
    expected = shard_bytes(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    assert ended(launch(cluster, config)) == (0, "")
    assert shard_bytes(tmp_path / "run") == expected
    await_that(lambda: not actors())


def test_a_node_that_is_killed_costs_only_what_it_was_at(tmp_path, cluster):
    more = {"tars": {"a.tar": (40, 0)}, "duplicates": None, "localize": None, "embed": None, "part_size": 4}
    drive(squares_config(tmp_path, **more))
    expected = shard_bytes(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    process = launch(cluster, squares_config(tmp_path, **more, tag=troubled("SlowTagger", seconds=0.6)))
    await_that(lambda: len(parts_there(tmp_path / "run", "tag")) >= 4, process)
    node = cluster.list_all_nodes()[-1]
    (raylet,) = node.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)
    code, err = ended(process)
    await_that(lambda: not actors())
    cluster.remove_node(node, allow_graceful=False)
    assert code == 0, err
    assert re.search(r"tag: the node \S+ is gone; what it was at goes to another", err)
    assert "Traceback" not in err
    assert "attempt" not in err
    assert shard_bytes(tmp_path / "run") == expected


def test_nodes_that_go_one_after_the_other_end_the_run(tmp_path, machines):
    """One worker node at a time, and the head; of those that may go beyond as many, there are none here."""
    for other in list(machines.worker_nodes):
        machines.remove_node(other)
    begun = tmp_path / "begun"
    config = small(tmp_path, tag=troubled("SlowTagger", seconds=60, begun=str(begun)))
    node = machines.add_node(**NODE)
    script = "from tagmill.runners import cli, ray_pool; ray_pool.NODES_IN_A_ROW = 0; cli.main()"
    arguments = ["run", str(config), "--runner", "ray", "--", f"--address={machines.address}"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", script, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(5):
        await_that(lambda: begun.exists() or process.poll() is not None)
        if process.poll() is not None:
            break
        (raylet,) = node.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)
        await_that(lambda: not actors())
        machines.remove_node(node, allow_graceful=False)
        begun.unlink()
        node = machines.add_node(**NODE)
    code, err = ended(process)
    assert code == 1, err
    last = err.splitlines()[-1]
    assert re.fullmatch(r"tagmill: tag: \d nodes of the cluster went away one after the other, .*", last), err
    assert "attempt" not in err


def test_a_node_that_comes_late_is_used(tmp_path, cluster, expected):
    cluster.remove_node(cluster.list_all_nodes()[-1])
    process = launch(cluster, small(tmp_path, tag=troubled("SlowTagger", seconds=0.6)))
    await_that(lambda: parts_there(tmp_path / "run", "tag"), process)
    assert len(actors()) == 1
    cluster.add_node(**NODE)
    await_that(lambda: len(actors()) == 2, process)
    assert ended(process) == (0, "")
    assert shard_bytes(tmp_path / "run") == expected


def test_an_image_that_kills_is_left_out_as_if_it_could_not_be_decoded(tmp_path, cluster):
    config = small(tmp_path, max_dead_fraction=0.5)
    bad = [digests_of(tmp_path / "data" / "a.tar")[6]]
    small(tmp_path, tag=troubled("DeadlyTagger", bad=bad, by="refuse"), max_dead_fraction=0.5)
    drive(config)
    expected = shard_bytes(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    small(tmp_path, tag=troubled("DeadlyTagger", bad=bad, by="SIGSEGV"), max_dead_fraction=0.5)
    code, err = ended(launch(cluster, config))
    assert code == 0, err
    assert "Traceback" not in err
    assert len(re.findall(r"tag: squares/\S+, row \d+ of \S+, is left out", err)) == 1
    assert shard_bytes(tmp_path / "run") == expected
    dead = current_folder(tmp_path / "run", "tag") / "dead"
    letters = [row for path in sorted(dead.iterdir()) for row in pq.read_table(path).to_pylist()]
    assert [letter["reason"] for letter in letters] == ["process_died"]
    assert drive(config).jobs == []


@pytest.mark.parametrize(
    ("tagger", "options", "code", "last"),
    [
        (troubled("MisplacedTagger", home=0), [], 2, "tagmill: the weights lie on another disk; mount it"),
        (troubled("FailingTagger"), [], 1, ".*KeyError: 'a bug in a plug-in'"),
        (
            troubled("DeadlyTagger", bad=[], by="SIGKILL", at="load"),
            [],
            1,
            "tagmill: tag: a worker process was lost on .* while it got ready, 3 times; its model cannot .*",
        ),
        (
            troubled("DeadlyTagger", bad=[], by="SIGKILL"),
            ["--hint", "num_gpus=1"],
            1,
            "tagmill: tag: a worker asks for num_cpus=1, num_gpus=1, and no node of the cluster can give "
            r"that \(3 nodes with 2 CPUs, 0 GPUs, .* GB\); waited 2 s for a node, see --node-timeout",
        ),
    ],
    ids=["config", "bug", "load", "gpu"],
)
def test_what_cannot_go_on_ends_the_run_and_says_why(tmp_path, cluster, tagger, options, code, last):
    drive(small(tmp_path))
    patience = ["--node-timeout=2"] if options else []
    address = f"--address={cluster.address}"
    config = small(tmp_path, tag=tagger)
    process = start("run", config, "--runner", "ray", *options, "--", address, *patience)
    found, err = ended(process)
    assert found == code, err
    lines = [line for line in err.splitlines() if line.strip()]
    assert re.fullmatch(last, lines[-1]), err
    assert "Traceback" not in err or code == 1
    assert not (tmp_path / "run" / "lease.json").exists()
    await_that(lambda: not actors())


def test_an_interruption_is_one_line_and_leaves_no_actor(tmp_path, cluster):
    begun = tmp_path / "begun"
    process = launch(cluster, small(tmp_path, tag=troubled("SlowTagger", seconds=60, begun=str(begun))))
    await_that(begun.exists, process)
    assert actors()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "tagmill: interrupted; run the same command to go on\n")
    assert not (tmp_path / "run" / "lease.json").exists()
    await_that(lambda: not actors())


def test_a_driver_that_is_killed_leaves_no_actor_and_is_gone_on_from(tmp_path, cluster, expected):
    config = small(tmp_path, tag=troubled("SlowTagger", seconds=0.4))
    process = launch(cluster, config)
    await_that(lambda: len(parts_there(tmp_path / "run", "tag")) >= 2, process)
    process.kill()
    process.communicate()
    await_that(lambda: not actors())
    before = parts_there(tmp_path / "run", "tag")
    assert ended(launch(cluster, config)) == (0, "")
    assert before.items() <= parts_there(tmp_path / "run", "tag").items()
    assert shard_bytes(tmp_path / "run") == expected


NOT_EDITABLE = """
import sys
sys.meta_path[:] = [one for one in sys.meta_path if not one.__module__.startswith("__editable__")]
"""
"""Takes away what finds tagmill in a checkout."""


@pytest.mark.parametrize(
    ("stub", "last"),
    [
        ("tagmill-9.9.dist-info/METADATA", r"the node \S+ has tagmill 9.9 on Python .*: install the same"),
        (
            "tagmill/__init__.py",
            "a node of the cluster cannot start tagmill: .* No module named 'tagmill.runners.*",
        ),
    ],
    ids=["another", "none"],
)
def test_a_node_without_this_tagmill_is_refused(tmp_path, machines, stub, last):
    """The only one that takes tasks: another could do them all before it has one."""
    (tmp_path / "there" / stub).parent.mkdir(parents=True)
    (tmp_path / "there" / stub).write_text("Name: tagmill\nVersion: 9.9\n" if "dist" in stub else "")
    path = os.pathsep.join([str(tmp_path / "there"), os.environ.get("PYTHONPATH", "")])
    (tmp_path / "there" / "sitecustomize.py").write_text(NOT_EDITABLE if "init" in stub else "")
    for other in list(machines.worker_nodes):
        machines.remove_node(other)
    node = machines.add_node(**NODE, env_vars={"PYTHONPATH": path})
    try:
        code, err = ended(launch(machines, small(tmp_path)))
    finally:
        machines.remove_node(node)
    assert code == 2, err
    assert re.fullmatch(f"tagmill: {last}", err.splitlines()[-1]), err
    assert "Traceback" not in err


def test_actors_that_end_between_two_jobs_are_replaced(tmp_path, cluster, expected, caplog):
    """All of them, and no part is blamed."""
    killed = []

    class Killing(RayEngine):
        def execute(self, job: Job) -> None:
            mine = actors(psutil.Process().children(recursive=True))
            for actor in mine:
                actor.kill()
            await_that(lambda: not any(actor.is_running() for actor in mine))
            killed.extend(mine)
            super().execute(job)

    engine = Killing(RayFlags(cluster.address), RayHints())
    try:
        Driver(load_config(str(small(tmp_path)))).run(engine, Quiet())
    finally:
        engine.close()
    assert len(killed) >= 4
    assert shard_bytes(tmp_path / "run") == expected
    assert caplog.messages == []


def test_what_a_worker_warns_of_is_seen(tmp_path, cluster):
    config = small(tmp_path, tag=troubled("WarningTagger"))
    code, err = ended(launch(cluster, config, "--until", "tag"))
    assert code == 0, err
    assert "WARNING troubled_models: it is slow here" in err
    assert "UserWarning: it is old" in err


def test_a_node_that_does_not_see_the_run_folder_is_refused(tmp_path, cluster):
    """A real one: a folder of its own is mounted over the run's."""
    config = small(tmp_path / "shared")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a mount namespace")
    program = f"{Path(sys.executable).parent}/ray start --address={cluster.address} --num-cpus=4 --block"
    command = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {tmp_path}/shared && exec {program}"]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_that(lambda: sum(one["Alive"] for one in cluster.global_state.node_table()) == 4)
        code, err = ended(launch(cluster, config))
    finally:
        node.terminate()
        node.wait()
    assert code == 2
    assert re.fullmatch(
        rf"tagmill: the node \S+ \(.*\) does not see the run folder at {tmp_path}\S+: set `run` to .*\n", err
    )


def test_without_a_cluster_one_is_started_here_and_ended(tmp_path, expected, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    before = {path.name for path in Path("/tmp").glob("tagmill-ray-*")}
    process = start("run", small(tmp_path), "--runner", "ray")
    code, err = ended(process)
    assert code == 0, err
    (line,) = err.splitlines()
    assert "no Ray cluster runs here, and no --address=HOST:PORT is given: starting Ray" in line
    assert shard_bytes(tmp_path / "run") == expected
    assert {path.name for path in Path("/tmp").glob("tagmill-ray-*")} <= before


def test_an_address_where_nobody_answers_is_one_line(tmp_path):
    process = start("run", small(tmp_path), "--runner", "ray", "--", "--address=127.0.0.1:9")
    code, err = ended(process)
    assert code == 2
    assert re.fullmatch("tagmill: --runner ray: no Ray cluster answers at 127.0.0.1:9; give .*\n", err)
