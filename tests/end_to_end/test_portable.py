import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import environment, tagmill
from runs import drive, shard_bytes
from sources import write_config, write_squares


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert process.poll() is None, "the service ended before it listened"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {port}")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Beam's local job service and a pool of workers that knows nothing of this process."""
    job, pool = free_port(), free_port()
    portability = "apache_beam.runners"
    commands = [
        [f"{portability}.portability.local_job_service_main", f"--job_port={job}"],
        [f"{portability}.worker.worker_pool_main", f"--service_port={pool}"],
    ]
    processes = []
    with open(tmp_path / "services.log", "wb") as log:
        try:
            for command, port in zip(commands, (job, pool), strict=True):
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", *command],
                    # The pool starts its workers as `python`, whichever comes first on the path.
                    env={**environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                    stdout=log,
                    stderr=log,
                    cwd=tmp_path,
                )
                processes.append(process)
                wait_for(port, process)
            yield job, pool
        finally:
            for process in processes:
                process.kill()
                process.wait()


def test_a_run_on_a_job_service_with_external_workers_gives_the_same_shards(
    tmp_path: Path, services: tuple[int, int]
):
    job, pool = services
    for name in ("local", "portable"):
        write_squares(tmp_path / name / "data" / "a.tar", 12)
        write_config(tmp_path / name, parse=None)
    drive(tmp_path / "local" / "config.yaml")
    flags = [
        f"--job_endpoint=localhost:{job}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{pool}",
    ]
    tagmill("run", tmp_path / "portable" / "config.yaml", "--runner", "portable", "--", *flags)
    assert shard_bytes(tmp_path / "portable" / "run") == shard_bytes(tmp_path / "local" / "run")
