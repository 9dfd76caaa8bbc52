"""Runs functions in children that are forked from this process, under limits, and tells what they took."""

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What became of a child: its `result` (JSON) if it ended, or the `signal` that ended it.

    `peak` is its memory in bytes over that of this process, `seconds` its CPU time.
    """

    result: Any = None
    error: str = ""
    signal: int = 0
    peak: int = 0
    seconds: float = 0.0


def run_forked(call: Callable[[], Any], room: int | None = None, most_seconds: int | None = None) -> Outcome:
    """Call a function in a child that may map `room` bytes more than this process, and use some CPU time.

    Not for what starts workers, in a process that did so before: gRPC's threads do not live through a fork.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(call, writer, room, most_seconds)
    os.close(writer)
    try:
        with open(reader, "rb") as stream:
            data = stream.read()
    except BaseException:  # such as a test's timeout
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    _, status, used = os.wait4(pid, 0)
    seconds = used.ru_utime + used.ru_stime
    if os.WIFSIGNALED(status):
        return Outcome(signal=os.WTERMSIG(status), seconds=seconds)
    return Outcome(**json.loads(data), seconds=seconds)


def _child(call: Callable[[], Any], writer: int, room: int | None, most_seconds: int | None) -> None:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        base = _status("VmRSS")
        if room is not None:
            most = _status("VmSize") + room
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if most_seconds is not None:
            used = int(time.process_time()) + most_seconds
            resource.setrlimit(resource.RLIMIT_CPU, (used, used))
        try:
            told = {"result": call()}
        except BaseException:  # noqa: BLE001  # the parent is told
            told = {"error": traceback.format_exc()[-2000:]}
        told["peak"] = max(0, _status("VmHWM") - base)
        os.write(writer, json.dumps(told).encode())
        code = 0
    finally:
        os._exit(code)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))
