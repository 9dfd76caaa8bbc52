"""What driving costs: CPU seconds of a run, against those of its stages' work in one process.

    python tests/benchmarks/bare_loop.py CONFIG [--workers N ...] [--rounds N] [--set KEY=VALUE ...]

The config is run into new folders: once to learn the tasks of every job, and then by turns in each way. The
bare loop imports the libraries and loads the models that the run does, and does the same tasks one after the
other, without Beam, a driver or other processes; it writes no parts, and leaves out jobs whose tasks depend
on each other, such as cluster's. Printed are the least CPU seconds of all processes, the least wall seconds,
and their ratios to the bare loop. Where others use the machine too, only the CPU seconds say something.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import say

from tagmill.pipeline.config import load_config
from tagmill.pipeline.job import Job
from tagmill.pipeline.run import Driver
from tagmill.runners.beam_flags import parse_flags
from tagmill.runners.commands import launch
from tagmill.runners.commands.terminal import Terminal
from tagmill.runners.local import LocalEngine
from tagmill.transforms.stage import limit_threads, process_part
from tagmill.transforms.worker import PartWorker

BARE = -1
"""In place of a number of workers."""


@dataclass
class Recording:
    """An engine that notes the jobs of independent tasks."""

    engine: LocalEngine
    done: list[tuple[Any, list[Any]]] = field(default_factory=list)

    def execute(self, job: Job) -> None:
        """Run a job."""
        self.engine.execute(job)
        if job.worker is not None:
            self.done.append((job.worker, job.tasks))


def drive(config: str, overrides: list[str], workers: int) -> Recording:
    """Run a config whole."""
    driver = Driver(load_config(config, overrides))
    with closing(LocalEngine(workers, parse_flags([]))) as engine:
        recording = Recording(engine)
        launch.make(driver, recording, Terminal(quiet=True), launch.log_format("plain"))
    return recording


def loop(jobs: str, folder: str) -> None:
    """Do the tasks of jobs; what is not a part is written into a folder."""
    for worker, tasks in pickle.loads(Path(jobs).read_bytes()):
        limit_threads(worker.stage.shared.threads)
        worker.stage.setup()
        worker.folder = folder
        for task in tasks:
            if type(worker) is PartWorker:
                process_part(worker.stage, task, worker.stage.read(task))
            else:
                worker.make(task)


def measure(arguments: list[str], workers: int, folder: str) -> tuple[float, float]:
    """Do one way in a process of its own; its CPU seconds and wall seconds."""
    command = [sys.executable, __file__, *arguments, f"--one={workers}", f"--folder={folder}"]
    before, start = os.times(), time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    after, stop = os.times(), time.monotonic()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, stop - start


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.one == BARE:
            loop(options.folder, name)
            return
        if options.one is not None:
            drive(options.config, [*options.overrides, f"run={options.folder}"], options.one)
            return
        arguments = [options.config, *(f"--set={override}" for override in options.overrides)]
        jobs = Path(name, "jobs")
        recording = drive(options.config, [*options.overrides, f"run={name}/recorded"], 1)
        jobs.write_bytes(pickle.dumps(recording.done))
        found: dict[int, list[tuple[float, float]]] = {}
        for turn in range(options.rounds):
            for workers in [BARE, *options.workers]:
                folder = str(jobs) if workers == BARE else f"{name}/{turn}-{workers}"
                found.setdefault(workers, []).append(measure(arguments, workers, folder))
    _say(found)


def _say(found: dict[int, list[tuple[float, float]]]) -> None:
    least = {
        workers: [min(column) for column in zip(*times, strict=True)] for workers, times in found.items()
    }
    for workers, (spent, wall) in least.items():
        name = "bare loop" if workers == BARE else f"workers {workers}"
        say("bare_loop", name, spent, "CPU s")
        say("bare_loop", f"{name}: wall", wall, "s")
        if workers != BARE:
            say("bare_loop", f"{name}: CPU seconds, times those of the bare loop", spent / least[BARE][0])
            say("bare_loop", f"{name}: wall seconds, times those of the bare loop", wall / least[BARE][1])


if __name__ == "__main__":
    main()
