"""Command lines in processes that are forked from one which has imported what they need: that is half of what
a short one takes. Each is a process of its own all the same, with its environment, folder and streams.
"""

import atexit
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

_lock = threading.Lock()
_servers: list["subprocess.Popen[str]"] = []


def run_warm(
    arguments: list[str], env: dict[str, str], cwd: str | None = None, timeout: int = 300
) -> "subprocess.CompletedProcess[str]":
    """Run a command line to its end. Raises TimeoutExpired, and the process is gone then."""
    with _lock, tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        asked = {"arguments": arguments, "env": env, "cwd": cwd or os.getcwd(), "timeout": timeout}
        asked |= {"out": str(out), "err": str(err), "umask": _umask()}
        server = _server(env)
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        if status == signal.SIGALRM:
            raise subprocess.TimeoutExpired(arguments, timeout)
        code = os.waitstatus_to_exitcode(status)
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def _umask() -> int:
    found = os.umask(0o022)
    os.umask(found)
    return found


def _server(env: dict[str, str]) -> "subprocess.Popen[str]":
    if not _servers or _servers[-1].poll() is not None:
        _servers.append(
            subprocess.Popen(
                [sys.executable, "-P", __file__],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        atexit.register(_servers[-1].wait)
        atexit.register(_servers[-1].kill)
    return _servers[-1]


def _serve() -> None:
    logging.disable()  # Beam's words on what is not installed
    import tagmill.pipeline.run
    import tagmill.pipeline.study.report
    import tagmill.runners.cli
    import tagmill.runners.commands.inspection
    import tagmill.runners.commands.launch
    import tagmill.runners.local  # noqa: F401

    logging.disable(logging.NOTSET)
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                _become(asked)
            finally:  # the command line ends the process itself
                os.kill(os.getpid(), signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _become(asked: dict[str, Any]) -> None:
    """Be the process that was asked for, to its end."""
    os.chdir(asked["cwd"])
    os.umask(asked["umask"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path += [one for one in os.environ["PYTHONPATH"].split(os.pathsep) if one not in sys.path]
    streams = [(os.devnull, os.O_RDONLY)]
    streams += [(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("out", "err")]
    for number, (path, flags) in enumerate(streams):
        os.dup2(os.open(path, flags, 0o600), number)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(asked["timeout"])
    sys.argv = ["tagmill", *asked["arguments"]]
    from tagmill.runners.cli import main

    main()


if __name__ == "__main__":
    _serve()
