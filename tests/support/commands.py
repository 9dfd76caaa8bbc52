"""Runs the command line as a user does, in a process of its own or, which is quicker, in this one."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from tagmill.runners import cli
from warm import run_warm

SUPPORT = Path(__file__).parent


def environment() -> dict[str, str]:
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *(str(Path(e).resolve()) for e in path)]),
    }


def start(
    *arguments: object, most: int | None = None, python: str = sys.executable, code: str = ""
) -> "subprocess.Popen[str]":
    """Start a process; no file that it writes grows beyond `most` bytes, as on a full disk.

    `python` is another one's path, and `code` what it does in place of the command line's module.
    """

    def prepare() -> None:
        # Ignored where a script runs the tests in its background; an interruption is to be heeded here.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if most is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return subprocess.Popen(
        [python, "-P", *(["-c", code] if code else ["-m", "tagmill.runners.cli"]), *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


def finished(process: "subprocess.Popen[str]", seconds: float) -> tuple[int, str]:
    """Wait for a command, within a bound: its exit code, and what it said on standard error."""
    try:
        _, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, err


def tagmill(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run to the end and check the exit code; gives standard output and standard error."""
    done = run_warm([*map(str, arguments)], environment())
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def call(*arguments: object, code: int = 0) -> tuple[str, str]:
    """As `tagmill`, but in this process; a bug is raised."""
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    error, exit_code, err = result.exception, result.exit_code, result.stderr
    if type(error) in cli.EXIT_CODES:
        exit_code, err = cli.EXIT_CODES[type(error)], f"{err}tagmill: {error}\n"
    elif error is not None and not isinstance(error, SystemExit):
        raise error
    assert exit_code == code, f"exit {exit_code}\n{result.stdout}\n{err}"
    return result.stdout, err


def parts_of(run: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every part of a run, by its path in the run."""
    found = {}
    for path in run.glob("*/*/*.parquet"):
        if "report" not in path.parts:
            found[str(path.relative_to(run))] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found
