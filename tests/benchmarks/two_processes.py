"""How much faster two processes train than one, and what of the loss is the machine's.

    python tests/benchmarks/two_processes.py CONFIG [--rounds N] [--batch N] [--set KEY=VALUE ...]

CONFIG is a recipe of `tagmill train`; its first epoch is trained on CPUs, a thread a process, in three ways
by turns: by one process; by two trainings of one process at the same time, which share the machine and
nothing else; and by one training of two processes. Printed are medians of images a second, after the first
steps, and two ratios: of two processes to twice one, the scaling efficiency; and of two processes to the two
trainings, which leaves out what the processes would take from each other anyway.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import say

FIXED = ("epochs=1", "validate=false", "log_every=1", "save_every=null", "tensorboard=false")
FROZEN = "engine.batch_norm=frozen"
"""In all ways: one process alone could train the statistics, two do not."""
SKIPPED = 3
"""Steps at the start that are not measured: buffers are made and caches filled."""


def start(config: str, out: Path, processes: int, overrides: list[str]) -> "subprocess.Popen[bytes]":
    """Start a training."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command += ["tagmill.runners.cli", "train", config]
    for override in (*FIXED, FROZEN, "engine.device=cpu", f"out={out}", *overrides):
        command += ["--set", override]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


def rate(out: Path, images: int) -> float:
    """Read images a second from a training's log: those of its steps without the first ones."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["step"]]  # the first is about the classes
    seconds = [images * line["step"] / line["images_per_second"] for line in lines]
    return images * (len(lines) - SKIPPED) / (seconds[-1] - seconds[SKIPPED - 1])


def run(config: str, folder: Path, trainings: int, processes: int, overrides: list[str]) -> float:
    """Run trainings at the same time to their end; images a second of all together."""
    outs = [folder / f"{trainings}-{processes}-{number}" for number in range(trainings)]
    started = [start(config, out, processes, overrides) for out in outs]
    if any(process.wait() for process in started):
        raise SystemExit("a training failed; see above")
    size = int(next(o.partition("=")[2] for o in overrides if o.startswith("data.batch_size=")))
    return sum(rate(out, size * processes) for out in outs)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="images of a process")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    overrides = [*options.overrides, f"data.batch_size={options.batch}"]
    rates = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            ways = ((1, 1), (2, 1), (1, 2))
            rates.append([run(options.config, Path(name), *way, overrides) for way in ways])
    one, beside, both = (statistics.median(found) for found in zip(*rates, strict=True))
    scaling = statistics.median(two / (2 * alone) for alone, _, two in rates)
    shared = statistics.median(two / side for _, side, two in rates)
    say("two_processes", "one process", one, "images/s")
    say("two_processes", "two trainings at the same time", beside, "images/s")
    say("two_processes", "two processes", both, "images/s")
    say("two_processes", "two processes, of twice one", scaling)
    say("two_processes", "two processes, of two trainings", shared)


if __name__ == "__main__":
    main()
