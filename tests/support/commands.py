"""Runs the command line as a user does, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent


def environment() -> dict[str, str]:
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *(str(Path(e).resolve()) for e in path)]),
    }


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tagmill.runners.cli", *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tagmill(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run to the end and check the exit code; gives standard output and standard error."""
    process = start(*arguments)
    out, err = process.communicate()
    assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def shards_of(run: Path) -> dict[str, bytes]:
    """The bytes of a run's tars and manifest."""
    (manifest,) = (run / "shards").glob("*/manifest.json")
    return {path.name: path.read_bytes() for path in [manifest, *manifest.parent.glob("*.tar")]}


def parts_of(run: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every part of a run, by its path in the run."""
    found = {}
    for path in run.glob("*/*/*.parquet"):
        if "report" not in path.parts:
            found[str(path.relative_to(run))] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found
