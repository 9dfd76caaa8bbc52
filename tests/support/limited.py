"""Runs a function in a child of bounded memory, and tells what it took."""

import importlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent


def run_limited(call: str, *arguments: Any, room: int | None = None) -> dict[str, Any]:
    """Call `module:name` in a child that may map `room` bytes more than once it has imported all.

    The answer has the `result` (JSON), the `peak` of memory in bytes over that base, and CPU `seconds`.
    """
    command = [sys.executable, __file__, call, json.dumps(arguments), json.dumps(room)]
    path = os.pathsep.join([str(SUPPORT), *filter(None, sys.path)])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        # Any thread may have glibc map an arena of 64 MiB that it hardly uses: chance would fill the room.
        env={**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))


def _main(call: str, arguments: str, room: str) -> None:
    module, name = call.split(":")
    function = getattr(importlib.import_module(module), name)
    if json.loads(room) is not None:
        most = _status("VmSize") + json.loads(room)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    base, used = _status("VmRSS"), sum(os.times()[:2])
    result = function(*json.loads(arguments))
    took = {"peak": _status("VmHWM") - base, "seconds": sum(os.times()[:2]) - used}
    sys.stdout.write("\n" + json.dumps({"result": result} | took) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
