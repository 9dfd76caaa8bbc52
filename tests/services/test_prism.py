"""Runs on Prism, Beam's own portable runner, with a pool of workers that knows nothing of these processes."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from commands import call, finished, start, tagmill
from runs import damaged, drive, shard_bytes, squares_config
from services import Service, free_port, installed, portable_flags, wait_until, worker_pool

pytestmark = pytest.mark.services

BOUND = 90
"""Seconds within which a command ends whose services are gone."""

finish = partial(finished, seconds=BOUND)

FEW = {"duplicates": None, "localize": None, "embed": None}
"""Stages that are left out where any stage will do."""


@dataclass
class Prism:
    """Prism and its pool."""

    jobs: Service
    pool: Service

    @property
    def flags(self) -> list[str]:
        return portable_flags(self.jobs.port, self.pool.port)

    def states(self) -> list[str]:
        """The states of all jobs that Prism was given, in their order."""
        with grpc.insecure_channel(f"localhost:{self.jobs.port}") as channel:
            service = beam_job_api_pb2_grpc.JobServiceStub(channel)
            jobs = service.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=10).job_info
            found = {}
            for job in jobs:
                asked = beam_job_api_pb2.GetJobStateRequest(job_id=job.job_id)
                found[job.job_id] = service.GetState(asked, timeout=10).state
        return [beam_job_api_pb2.JobState.Enum.Name(found[name]) for name in sorted(found)]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prism]:
    program = installed("prism", "portable")
    folder, port = tmp_path_factory.mktemp("prism"), free_port()
    command = [program, f"-job_port={port}", "-serve_http=false"]
    pool = worker_pool(folder / "pool.log")
    try:
        jobs = Service(command, port, folder / "prism.log")
        try:
            yield Prism(jobs, pool)
        finally:
            jobs.kill()
    finally:
        pool.kill()


@pytest.fixture
def prism(services: Prism) -> Prism:
    """Both services, whatever the test before has killed."""
    services.pool.ensure()
    services.jobs.ensure()
    return services


def slow(seconds: float, begun: object = "") -> dict[str, object]:
    return {"model": "troubled_models:SlowTagger", "options": {"seconds": seconds, "begun": str(begun)}}


def test_a_run_through_all_stages_gives_the_same_shards(tmp_path, prism):
    """The job of `tag` takes longer than a service has for one answer."""
    local = squares_config(tmp_path / "local", tag=slow(0))
    drive(local)
    config = squares_config(tmp_path / "portable", tag=slow(0.2))
    tagmill("run", config, *prism.flags, "--job_server_timeout=3")
    assert shard_bytes(tmp_path / "portable" / "run") == shard_bytes(tmp_path / "local" / "run")
    assert damaged(tmp_path / "portable" / "run") == []
    assert set(prism.states()) == {"DONE"}


@pytest.mark.timeout(900)
def test_the_whole_demo_gives_the_same_shards(tmp_path, prism, demo):
    config = demo.config(tmp_path, str(tmp_path / "run"))
    code, err = finish(start("run", config, *prism.flags), seconds=600)
    assert (code, err) == (0, "")
    assert shard_bytes(tmp_path / "run") == demo.shards
    assert damaged(tmp_path / "run") == []
    assert set(prism.states()) == {"DONE"}


def test_a_job_that_fails_is_one_line_that_names_the_file_with_the_rest(tmp_path, prism):
    bug = [{"stage": "own_stages:Buggy", "after": "ingest"}]
    config = squares_config(tmp_path, {"b.tar": (2, 0)}, **FEW, stages=bug)
    _, err = tagmill("run", config, *prism.flags, code=1)
    (line,) = err.splitlines()
    assert line.startswith("tagmill: buggy: its job failed: LookupError: a bug")
    named = line.partition("is in ")[2].partition(", more in the logs")[0]
    assert "Traceback (most recent call last)" in Path(named).read_text()
    tagmill("run", config, code=1)  # as here


def test_what_a_worker_noted_in_the_run_goes_first(tmp_path, prism):
    lost = {"model": "troubled_models:MisplacedTagger", "options": {"home": 0}}
    config = squares_config(tmp_path, {"b.tar": (2, 0)}, **FEW, tag=lost)
    _, err = tagmill("run", config, *prism.flags, code=2)
    assert err == "tagmill: the weights lie on another disk; mount it\n"


@pytest.mark.parametrize(
    ("killed", "words"),
    [
        ("pool", "its job failed: .*disconnected|the pool of workers at .* does not answer any more"),
        ("jobs", "nothing answers at localhost"),
        ("driver", None),
    ],
)
def test_after_a_kill_the_same_command_goes_on(tmp_path, prism, killed, words):
    begun = tmp_path / "begun"
    tars = {"b.tar": (6, 0)}
    config = squares_config(tmp_path / "portable", tars, **FEW, tag=slow(0.5, begun))
    process = start("run", config, *prism.flags)
    wait_until(begun.exists, "the stage did not begin")
    if killed == "driver":
        process.kill()
    else:
        getattr(prism, killed).kill()
    code, err = finish(process)
    if words is None:
        assert code == -signal.SIGKILL
    else:
        assert code == 1
        (line,) = err.splitlines()
        assert line.startswith("tagmill: tag: ")
        assert re.search(words, line), line
        getattr(prism, killed).start()
    tagmill("run", config, *prism.flags)
    drive(squares_config(tmp_path / "local", tars, **FEW, tag=slow(0)))
    assert shard_bytes(tmp_path / "portable" / "run") == shard_bytes(tmp_path / "local" / "run")
    assert damaged(tmp_path / "portable" / "run") == []


def test_a_pool_that_prism_does_not_miss_ends_the_job(tmp_path, prism):
    """The worker that it started goes on, so that nothing is amiss for Prism."""
    held = {"model": "troubled_models:HeldTagger", "options": {"folder": str(tmp_path)}}
    config = squares_config(tmp_path, {"b.tar": (2, 0)}, **FEW, tag=held)
    process = start("run", config, *prism.flags)
    wait_until((tmp_path / "begun").exists, "the stage did not begin")
    prism.pool.kill_alone()
    code, err = finish(process)
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(
        f"tagmill: tag: the pool of workers at localhost:{prism.pool.port} does not answer"
    )
    wait_until(lambda: prism.states()[-1] == "CANCELLED", f"{prism.states()}", 10)


def test_a_job_is_not_handed_over_without_its_pool(tmp_path, prism):
    """Prism would end itself."""
    prism.pool.kill()
    _, err = tagmill("run", squares_config(tmp_path, {"b.tar": (2, 0)}, **FEW), *prism.flags, code=2)
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: no pool of workers answers at localhost:{prism.pool.port} within 20 s")
    prism.states()


def test_an_interruption_cancels_the_job(tmp_path, prism):
    begun = tmp_path / "begun"
    config = squares_config(tmp_path, {"b.tar": (2, 0)}, **FEW, tag=slow(1, begun))
    process = start("run", config, *prism.flags)
    wait_until(begun.exists, "the stage did not begin")
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "tagmill: interrupted; run the same command to go on\n")
    wait_until(lambda: prism.states()[-1] == "CANCELLED", f"{prism.states()}", 10)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--job_endpoint=localhost:{port}", "--job_server_timeout=1"], "nothing that takes jobs answers at"),
        ([], "needs --job_endpoint=HOST:PORT"),
    ],
)
def test_a_wrong_endpoint_is_one_line(tmp_path, flags, words):
    flags = [flag.format(port=free_port()) for flag in flags]
    _, err = call("run", squares_config(tmp_path), "--runner=portable", "--", *flags, code=2)
    assert words in err.splitlines()[-1]
