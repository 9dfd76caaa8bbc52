"""Ray on machines that share nothing but an object store: a head without cores, nodes of one core each."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from commands import environment
from machines import Machine, Network, run
from services import installed, wait_until

HEAD_PORT = 6379
STORE_PORT = 5000
BUCKET = "s3://bucket"

TASK = "ray::TaskActor.do"
"""The title of an actor's process while it is at a task."""

WHOLE = "ray::TaskActor.run"
"""The same for a job whose tasks depend on each other, which runs as a whole."""

WRITTEN = re.compile(r'([\d.]+) - - .*"PUT /bucket/([^ /]+)/run/([a-z]+)/[^ /]+/[^ /]+\.parquet[? ].*" 200 ')
"""A part that was committed, in the store's log: by whom, in which folder of a run, by which stage."""

STORE_SCRIPT = """
import sys
from tagmill.tag_system.core import files
what, here, there = sys.argv[1:]
fs, path = files.filesystem(there)
if what == "put":
    fs.makedirs("bucket", exist_ok=True)
    fs.put(here, path)
else:
    fs.get(path, here, recursive=True)
"""


class RayMachines:
    """A store, a head and nodes; open it as a context, which ends all.

    Args:
        folder: A folder for logs, which no machine sees but this one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._network = Network()
        self._count = 0

    def __enter__(self) -> "RayMachines":
        self._network.__enter__()
        try:
            self._start_store()
            self.head = self._start_ray(
                "head", ["--head", f"--port={HEAD_PORT}", "--num-cpus=0", "--include-dashboard=false"]
            )
        except BaseException:
            self._network.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._network.__exit__()

    @property
    def nodes(self) -> list[Machine]:
        """The nodes that run, the oldest first."""
        return [machine for machine in self._network.machines[2:] if not machine.is_killed]

    @property
    def address(self) -> str:
        """The head's, as Ray wants it."""
        return f"{self.head.address}:{HEAD_PORT}"

    def add_node(self) -> Machine:
        """Start a machine that joins the cluster."""
        self._count += 1
        return self._start_ray(f"node-{self._count}", [f"--address={self.address}", "--num-cpus=1"])

    @property
    def accounted(self) -> list[Machine]:
        """All machines but the store's."""
        return self._network.machines[1:]

    def cut(self, node: Machine) -> None:
        """Pull the cable of a node."""
        self._network.cut(node)

    def left(self) -> list[str]:
        """Name what is left of all this, after the end."""
        return self._network.left()

    def put(self, path: Path, *names: str) -> None:
        """Copy a file into the store."""
        self._store("put", path, *names)

    def fetch(self, folder: Path, *names: str) -> None:
        """Copy a folder of the store."""
        self._store("get", folder, *names)

    def parts(self, name: str) -> Counter[str]:
        """Count the parts of a run that each machine committed, as the store's log has it."""
        names = {machine.address: machine.name for machine in self._network.machines}
        found = (WRITTEN.match(line) for line in self._store_log.read_text().splitlines())
        return Counter(names[match[1]] for match in found if match and match[2] == name)

    def at_work(self, title: str) -> dict[Machine, psutil.Process]:
        """Find the nodes with an actor's process of a title, and that process."""
        found = {}
        for node in self.nodes:
            for process in node.processes():
                if _title(process) == title:
                    found[node] = process
        return found

    def actors(self) -> list[psutil.Process]:
        """Find all actors' processes."""
        titles = (process for node in self.nodes for process in node.processes())
        return [process for process in titles if _title(process).startswith("ray::TaskActor")]

    def drive(self, name: str, config: str) -> "ClusterRun":
        """Start a run on the head."""
        self.head.write(f"{name}.yaml", config)
        program = [sys.executable, "-P", "-m", "tagmill.runners.cli", "run", f"{name}.yaml"]
        options = ["--runner", "ray", "--log-format", "json", "--", f"--address={self.address}"]
        return ClusterRun(
            self.head.command(*program, *options, env=self._env()), self._folder / f"{name}.log"
        )

    def _env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://{self._network.hub.address}:{STORE_PORT}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": environment()["PYTHONPATH"],
        }

    def _start_store(self) -> None:
        self._store_log = self._folder / "store.log"
        moto = [installed("moto_server", "cluster"), "-H", "0.0.0.0", "-p", STORE_PORT]
        with open(self._store_log, "wb") as log:
            subprocess.Popen(self._network.hub.command(*moto), stdout=log, stderr=log)
        wait_until(lambda: "Running on" in self._store_log.read_text(), "the store did not start")

    def _start_ray(self, name: str, options: list[str]) -> Machine:
        machine = self._network.add(name)
        ray = [Path(sys.executable).parent / "ray", "start", f"--node-ip-address={machine.address}", *options]
        limits = ["--object-store-memory=83886080", "--block"]
        with open(self._folder / f"{name}.log", "wb") as log:
            command = machine.command(*ray, *limits, env=self._env())
            started = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(
            lambda: started.poll() is not None or "Ray runtime started" in self.log(name),
            f"Ray did not start on {name}",
        )
        assert started.poll() is None, self.log(name)
        return machine

    def log(self, name: str) -> str:
        """Give what was logged under a name."""
        return (self._folder / f"{name}.log").read_text()

    def _store(self, what: str, path: Path, *names: str) -> None:
        uri = "/".join([BUCKET, *names])
        command = self._network.hub.on_network(sys.executable, "-P", "-c", STORE_SCRIPT, what, path, uri)
        run(command, env={**os.environ, **self._env()})


class ClusterRun:
    """A driver of a run, which logs its events."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with open(log, "ab") as stream:
            self._process = subprocess.Popen(command, stdout=stream, stderr=stream)

    @property
    def said(self) -> str:
        """All that it said."""
        return self._log.read_text()

    @property
    def stage(self) -> str:
        """The stage that it is at; empty before the first."""
        started = [event for event in self._events() if event.get("event") == "start"]
        return started[-1]["stage"] if started else ""

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kill the driver itself."""
        for process in psutil.Process(self._process.pid).children(recursive=True):
            process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> int:
        """Wait for the end; gives the exit code."""
        return self._process.wait(seconds)

    def _events(self) -> list[dict[str, Any]]:
        lines = self.said.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""
