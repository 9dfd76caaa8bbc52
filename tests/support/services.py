"""Programs that tests start beside them, such as job services and stores, and end again, whatever happens."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from commands import environment

INSTALLED = Path(__file__).parents[2] / ".cache" / "services"
"""Where `make services` installs what is no Python of the tests' own environment."""


def installed(name: str, door: str) -> str:
    """Give the path of an installed program; skip the test without it, but fail where CI runs it."""
    own = [INSTALLED / folder / name for folder in ("bin", "moto/bin", "")]
    for place in (*own, shutil.which(name)):
        if place and Path(place).exists():
            return str(place)
    said = f"{name} is not installed: run `make {door}`, which installs it into .cache/services"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds: Callable[[], object], what: str, seconds: float = 60, every: float = 0.05) -> None:
    """Wait until something holds, looking so often. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(every)


class Service:
    """A program that listens on a port of this machine, in a process group of its own."""

    def __init__(self, command: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None):
        self.port = port
        self.log = log
        self._command = [*command]
        self._env = {**environment(), **(env or {})}
        # A pool starts its workers as `python`, whichever comes first on the path.
        self._env["PATH"] = f"{Path(sys.executable).parent}:{self._env['PATH']}"
        self.start()

    def start(self) -> None:
        """Start it, once more if it was killed, and wait until it listens."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                start_new_session=True,
            )
        wait_until(
            lambda: self._process.poll() is not None or listens(self.port), f"nothing listens on {self.port}"
        )
        assert self._process.poll() is None, f"it ended before it listened:\n{self.log.read_text()}"

    def ensure(self) -> None:
        """Start it again if it has ended."""
        if self._process.poll() is not None:
            self.kill()
            self.start()

    def kill_alone(self) -> None:
        """Kill it, and leave what it started."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """Kill it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def worker_pool(log: Path) -> Service:
    """Start Beam's pool of workers, which knows nothing of this process."""
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    return Service([sys.executable, "-P", "-m", module, f"--service_port={port}"], port, log)


def portable_flags(job_port: int, pool_port: int) -> list[str]:
    """The command line's flags that hand its jobs to a job service with a pool of workers."""
    return [
        "--runner=portable",
        "--",
        f"--job_endpoint=localhost:{job_port}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{pool_port}",
    ]
