"""Runs on a double of Dataflow, with Beam's own client, staging in Google's store by its emulator."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from commands import finished, start, tagmill
from runs import damaged, drive, shard_bytes, squares_config
from services import Service, free_port, installed, wait_until, worker_pool
from tagmill.tag_system.core import files

pytestmark = pytest.mark.services

BOUND = 240
"""Seconds within which a command ends whose job does not go on."""

finish = partial(finished, seconds=BOUND)

FEW = {"duplicates": None, "localize": None, "embed": None}
"""Stages that are left out where any stage will do."""

PROJECT, REGION, IMAGE = "proj-ect1", "us-central1", "registry.example/tagmill:0.2.0"

SUPPORT = Path(__file__).parents[1] / "support"


@dataclass
class Cloud:
    """The double, the store, and what runs the jobs."""

    store: Service
    prism: Service
    pool: Service
    double: Service

    def ensure(self) -> None:
        for service in (self.store, self.prism, self.pool, self.double):
            service.ensure()

    @property
    def flags(self) -> list[str]:
        named = {"project": PROJECT, "region": REGION, "temp_location": "gs://bucket/staging"}
        named |= {"sdk_container_image": IMAGE, "dataflow_endpoint": f"http://localhost:{self.double.port}"}
        flags = [f"--{name}={value}" for name, value in named.items()]
        return ["--runner=dataflow", "--", "--no_auth", *flags]

    def run(self, config: Path, *more: str) -> "subprocess.Popen[str]":
        """Start a run with the Python that has Beam's client."""
        return start("run", config, *more, *self.flags, python=python())

    def fail(self, **faults: list[int]) -> None:
        """Tell the double how to answer next."""
        asked = Request(self._url("/double"), json.dumps(faults).encode(), method="POST")
        urlopen(asked, timeout=10).close()

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs that were taken, in their order, as JSON of the library."""
        with urlopen(self._url("/double"), timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["jobs"]
            return found

    def state(self) -> str:
        """The state of the last job."""
        return str(self.jobs()[-1]["currentState"]).removeprefix("JOB_STATE_")

    def counts(self, job_id: str) -> list[int]:
        """How many elements the collections of a job had."""
        place = f"/v1b3/projects/{PROJECT}/locations/{REGION}/jobs/{job_id}/metrics"
        with urlopen(self._url(place), timeout=10) as answer:
            return [metric["scalar"] for metric in json.load(answer)["metrics"]]

    def shards(self, run: str, folder: Path) -> dict[str, str]:
        """What `shard_bytes` says of a run in the store."""
        fs, path = files.filesystem(run)
        fs.get(path, str(folder / "copy"), recursive=True)
        return shard_bytes(folder / "copy")

    def _url(self, path: str) -> str:
        return f"http://localhost:{self.double.port}{path}"


def python() -> str:
    """The Python of an environment that has Beam's client of Dataflow."""
    return installed("gcp/bin/python", "dataflow")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    programs = [installed(name, "dataflow") for name in ("fake-gcs-server", "prism")]
    folder, started = tmp_path_factory.mktemp("cloud"), []
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        try:
            store = [programs[0], "-backend=memory", "-scheme=http"]
            store += ["-host=127.0.0.1", f"-port={port}", f"-external-url=http://127.0.0.1:{port}"]
            started.append(Service([*store, "-log-level=error"], port, folder / "store.log"))
            files.filesystem("gs://bucket")[0].mkdir("bucket")
            port = free_port()
            prism = [programs[1], f"-job_port={port}", "-serve_http=false"]
            started.append(Service(prism, port, folder / "prism.log"))
            started.append(worker_pool(folder / "pool.log"))
            ports = f"--prism=localhost:{port}", f"--pool=localhost:{started[-1].port}"
            port = free_port()
            double = [python(), "-P", str(SUPPORT / "dataflow_double.py"), f"--port={port}", *ports]
            started.append(Service(double, port, folder / "double.log"))
            yield Cloud(*started)
        finally:
            for service in reversed(started):
                service.kill()


@pytest.fixture
def cloud(services: Cloud) -> Cloud:
    """All services, whatever the test before has killed."""
    services.ensure()
    services.fail(create=[], get=[], update=[])
    return services


def held(folder: Path) -> dict[str, object]:
    """A tagger that begins, and goes on when it is let go."""
    return {"model": "troubled_models:HeldTagger", "options": {"folder": str(folder)}}


def let_go(folder: Path) -> None:
    (folder / "go").touch()


def begin(folder: Path, process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
    """Wait until the tagger of a run has begun."""
    wait_until((folder / "begun").exists, "the stage did not begin")
    return process


def local_shards(folder: Path) -> dict[str, str]:
    """The shards of the same run, made here."""
    drive(few(folder / "local", tag=held(folder)))
    return shard_bytes(folder / "local" / "run")


def few(folder: Path, run: str = "", count: int = 6, **changes: object) -> Path:
    """Write a config of few stages, whose run folder lies in the store unless `run` is empty."""
    return squares_config(folder, {"b.tar": (count, 0)}, **FEW, **changes, **({"run": run} if run else {}))


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL


@pytest.mark.timeout(900)
def test_the_whole_demo_gives_the_same_shards(tmp_path, cloud, demo):
    run = "gs://bucket/demo/run"
    assert finish(cloud.run(demo.config(tmp_path, run)), seconds=600) == (0, "")
    assert cloud.shards(run, tmp_path) == demo.shards
    assert damaged(run) == []
    jobs = cloud.jobs()
    assert {job["currentState"] for job in jobs} == {"JOB_STATE_DONE"}
    assert len({job["name"] for job in jobs}) == len(jobs)


def test_what_fails_now_and_then_is_asked_again(tmp_path, cloud):
    cloud.fail(create=[503], get=[503, 404, 503, 429])
    run = "gs://bucket/faulty/run"
    assert finish(cloud.run(few(tmp_path, run))) == (0, "")
    assert 1 in cloud.counts(cloud.jobs()[-1]["id"])
    drive(few(tmp_path / "local"))
    assert cloud.shards(run, tmp_path) == shard_bytes(tmp_path / "local" / "run")


def test_what_the_service_refuses_is_one_line(tmp_path, cloud):
    cloud.fail(create=[429])
    config = few(tmp_path, "gs://bucket/refused/run")
    code, err = finish(cloud.run(config))
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith("tagmill: ingest: Dataflow does not take the job: 429 ")
    assert finish(cloud.run(config, "--until", "ingest")) == (0, "")
    assert not files.exists("gs://bucket/refused/run/job.json")


def test_a_job_whose_workers_die_is_one_line_and_the_same_command_goes_on(tmp_path, cloud):
    run = "gs://bucket/died/run"
    config = few(tmp_path, run, tag=held(tmp_path))
    process = begin(tmp_path, cloud.run(config))
    cloud.pool.kill()
    code, err = finish(process)
    assert code == 1
    (line,) = err.splitlines()
    assert re.match("tagmill: tag: its job failed: .*(disconnected|does not answer any more)", line), line
    assert cloud.state() == "FAILED"
    cloud.pool.start()
    let_go(tmp_path)
    assert finish(cloud.run(config)) == (0, "")
    assert cloud.shards(run, tmp_path) == local_shards(tmp_path)


def test_an_interruption_cancels_the_job(tmp_path, cloud):
    run = "gs://bucket/interrupted/run"
    cloud.fail(update=[503])
    process = begin(tmp_path, cloud.run(few(tmp_path, run, tag=held(tmp_path))))
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "tagmill: interrupted; run the same command to go on\n")
    wait_until(lambda: cloud.state() == "CANCELLED", f"{cloud.jobs()[-1]}", 30)
    let_go(tmp_path)
    assert not files.exists(f"{run}/job.json")


def test_the_job_of_a_driver_that_was_killed_is_waited_for(tmp_path, cloud):
    run = "gs://bucket/killed/run"
    config = few(tmp_path, run, tag=held(tmp_path))
    kill(begin(tmp_path, cloud.run(config)))
    left, count = cloud.jobs()[-1], len(cloud.jobs())
    process = cloud.run(config, "--until", "tag")
    line = process.stderr.readline()
    assert "tag: an earlier driver left this job, which still runs; waiting for it" in line
    assert f"/dataflow/jobs/{REGION}/{left['id']}?project={PROJECT}" in line
    let_go(tmp_path)
    assert finish(process) == (0, "")
    assert len(cloud.jobs()) == count, "it had made everything"
    assert cloud.state() == "DONE"
    assert finish(cloud.run(config)) == (0, "")
    assert cloud.shards(run, tmp_path) == local_shards(tmp_path)


def test_a_job_that_could_not_be_cancelled_is_found_again_and_made_anew_if_it_failed(tmp_path, cloud):
    run = "gs://bucket/kept/run"
    config = few(tmp_path, run, tag=held(tmp_path))
    process = begin(tmp_path, cloud.run(config))
    cloud.fail(update=[503, 503, 503])
    process.send_signal(signal.SIGINT)
    code, err = finish(process)
    assert code == 130
    assert "tag: its job could not be cancelled: 503 " in err
    assert files.exists(f"{run}/job.json")
    process = cloud.run(config)
    assert "tag: an earlier driver left this job, which still runs" in process.stderr.readline()
    cloud.pool.kill()
    wait_until(lambda: cloud.state() == "FAILED", f"{cloud.jobs()[-1]}", 90)
    cloud.pool.start()
    let_go(tmp_path)
    assert finish(process) == (0, "")
    assert cloud.shards(run, tmp_path) == local_shards(tmp_path)
    assert not files.exists(f"{run}/job.json")


def test_who_waits_for_a_job_that_was_left_can_cancel_it_and_another_runner_names_it(tmp_path, cloud):
    run = "gs://bucket/left/run"
    config = few(tmp_path, run, tag=held(tmp_path))
    kill(begin(tmp_path, cloud.run(config)))
    _, err = tagmill("run", config, "--until", "ingest")
    (line,) = err.splitlines()
    assert f"tag: an earlier driver left the job {cloud.jobs()[-1]['name']} on Dataflow" in line
    assert cloud.state() == "RUNNING"
    process = cloud.run(config)
    assert "waiting for it, Ctrl-C cancels it" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    wait_until(lambda: cloud.state() == "CANCELLED", f"{cloud.jobs()[-1]}", 30)
    let_go(tmp_path)
    assert not files.exists(f"{run}/job.json")


def test_a_service_that_is_gone_for_good_is_one_line(tmp_path, cloud):
    """In a driver that waits two seconds where ours waits ten minutes."""
    hasty = "from tagmill.runners import cli, dataflow_job; dataflow_job.LOST_SECONDS = 2; cli.main()"
    config = few(tmp_path, "gs://bucket/gone/run", tag=held(tmp_path))
    process = begin(tmp_path, start("run", config, *cloud.flags, python=python(), code=hasty))
    job_id = cloud.jobs()[-1]["id"]
    cloud.double.kill()
    code, err = finish(process)
    let_go(tmp_path)
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"tagmill: tag: Dataflow does not say any more how job {job_id} does (")
    assert "it may still run" in line


def test_a_dry_run_shows_each_job_as_the_service_gets_it(tmp_path):
    """It talks to nobody."""
    config = few(tmp_path)
    drive(config, "tag.score_floor=0.2")
    flags = [f"--project={PROJECT}", f"--region={REGION}", "--temp_location=gs://bucket/staging"]
    flags += [f"--sdk_container_image={IMAGE}", "--machine_type=g2-standard-8"]
    shown = start("run", config, "--dry-run", "--runner=dataflow", "--", *flags, python=python())
    out, err = shown.communicate(timeout=BOUND)
    assert (shown.returncode, err) == (0, "")
    shape = re.compile(r"^tag: .*?^(\{.*?^\})\na request of ([0-9,]+) bytes", re.DOTALL | re.MULTILINE)
    ((text, size),) = shape.findall(out)
    job = json.loads(text)
    assert job["name"].startswith("tagmill-tag-")
    assert job["workers"]["machineType"] == "g2-standard-8"
    assert {one["image"] for one in job["environments"]} == {IMAGE}
    assert [one["hints"] for one in job["environments"] if one["hints"]] == [
        {"accelerator": "type:nvidia-l4;count:1;install-nvidia-driver"}
    ]
    assert job["workers"]["numThreadsPerWorker"] == 1
    assert "no_use_multiple_sdk_containers" in job["experiments"]
    assert "use_multiple_sdk_containers" not in job["experiments"]
    assert len(text) < int(size.replace(",", "")) < 100_000


def test_what_every_job_needs_is_asked_for_first(tmp_path):
    config = few(tmp_path, "gs://bucket/run")
    code, err = finish(start("run", config, "--runner=dataflow", python=python()))
    assert code == 2
    assert err == (
        "tagmill: --runner dataflow needs --project=PROJECT --region=REGION "
        "--temp_location=gs://BUCKET/FOLDER after --\n"
    )
