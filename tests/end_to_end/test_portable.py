import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import tagmill
from runs import drive, shard_bytes
from services import Service, free_port, portable_flags, worker_pool
from sources import write_config, write_squares


@pytest.fixture
def services(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Beam's local job service and a pool of workers that knows nothing of this process."""
    port = free_port()
    module = "apache_beam.runners.portability.local_job_service_main"
    command = [sys.executable, "-P", "-m", module, f"--job_port={port}"]
    pool = worker_pool(tmp_path / "pool.log")
    try:
        jobs = Service(command, port, tmp_path / "jobs.log")
        try:
            yield jobs.port, pool.port
        finally:
            jobs.kill()
    finally:
        pool.kill()


def test_a_run_on_a_job_service_with_external_workers_gives_the_same_shards(
    tmp_path: Path, services: tuple[int, int]
):
    for name in ("local", "portable"):
        write_squares(tmp_path / name / "data" / "a.tar", 12)
        write_config(tmp_path / name, parse=None)
    drive(tmp_path / "local" / "config.yaml")
    tagmill("run", tmp_path / "portable" / "config.yaml", *portable_flags(*services))
    assert shard_bytes(tmp_path / "portable" / "run") == shard_bytes(tmp_path / "local" / "run")
