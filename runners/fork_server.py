"""The driver's side of its worker processes: asks for one, and learns of its end."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import MappingProxyType


@dataclass(frozen=True)
class Start:
    """Asks for a worker. It is answered by `Started`.

    `imports` are modules that are imported before the fork, and serve every later worker too; those of
    `imports_alone` are imported after it, each without some that it would import in turn.
    """

    environment: Mapping[str, str]
    path: Sequence[str]
    directory: str
    imports: Sequence[str]
    imports_alone: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Kill:
    """Asks to kill a worker, unless it has ended."""

    pid: int


@dataclass(frozen=True)
class Started:
    """A worker is there."""

    pid: int


@dataclass(frozen=True)
class Ended:
    """A worker has ended; `code` is its exit code, or minus the number of the signal that killed it."""

    pid: int
    code: int


@dataclass
class WorkerProcess:
    """A worker process, of which the server that forked it tells the end."""

    pid: int
    _request: Callable[[Kill], None]
    code: int | None = None
    """The exit code, or minus the number of a signal; None while it runs, or if nobody knows."""
    is_killed: bool = False
    """Whether its driver asked for its end."""
    ended: threading.Event = field(default_factory=threading.Event)

    def kill(self) -> None:
        """End the process, if it runs."""
        if not self.ended.is_set():
            self.is_killed = True
            self._request(Kill(self.pid))

    @property
    def has_died(self) -> bool:
        """Tell whether it ended without being asked to."""
        return self.ended.is_set() and not self.is_killed

    def how(self) -> str:
        """Say how it ended."""
        if self.code is None:
            return "was lost"
        if self.code >= 0:
            return f"ended itself with exit code {self.code}"
        return f"was killed by {signal.Signals(-self.code).name}"


class ForkServer:
    """Has worker processes forked by a process of its own, which is started when the first is asked for.

    That process, and every worker, ends with this object, at the latest with this process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: _ServerLine | None = None
        self._end: Callable[[], object] = lambda: None

    def start(
        self,
        environment: Mapping[str, str],
        imports: Sequence[str] = (),
        imports_alone: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> WorkerProcess:
        """Start a worker with an environment, and modules that are imported as `Start` says.

        Raises RuntimeError if the server is gone.
        """
        with self._lock:
            if self._line is None or self._line.is_lost:
                self._end()
                self._line = _ServerLine()
                self._end = weakref.finalize(self, self._line.end)
            request = Start(
                dict(environment), search_path(), os.getcwd(), tuple(imports), dict(imports_alone)
            )
            return self._line.start(request)

    def close(self) -> None:
        """End what was started."""
        with self._lock:
            self._end()
            self._line = None


class _ServerLine:
    """The line to a running server, and the thread that listens to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._connection = Connection(os.dup(self._socket.fileno()))
        environment = {
            **os.environ,
            # A worker finds the modules that its driver finds, such as plug-ins beside a script, and no
            # others: it starts as `python -m`, which would put the working directory first.
            "PYTHONPATH": os.pathsep.join(search_path()),
            "PYTHONSAFEPATH": "1",
        }
        command = [sys.executable, "-m", "tagmill.runners.worker", str(theirs.fileno())]
        self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        self._sending = threading.Lock()
        self._started: queue.Queue[WorkerProcess | None] = queue.Queue()
        self.is_lost = False
        self._thread = threading.Thread(target=self._listen, name="listen to the fork server", daemon=True)
        self._thread.start()

    def start(self, request: Start) -> WorkerProcess:
        """Ask for a worker, and wait until it is there. Raises RuntimeError if the server is gone."""
        self._send(request)
        worker = self._started.get()
        if worker is None:
            raise RuntimeError("the process that forks worker processes has ended")
        return worker

    def end(self) -> None:
        """End the server, which ends its workers, and wait for it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._process.wait()
        self._thread.join()
        self._socket.close()
        self._connection.close()

    def _send(self, request: Start | Kill) -> None:
        with self._sending, suppress(OSError):  # who is gone is answered for by `_listen`
            self._connection.send(request)

    def _listen(self) -> None:
        workers: dict[int, WorkerProcess] = {}
        try:
            while True:
                message: Started | Ended = self._connection.recv()
                if isinstance(message, Started):
                    workers[message.pid] = WorkerProcess(message.pid, self._send)
                    self._started.put(workers[message.pid])
                else:
                    worker = workers.pop(message.pid)
                    worker.code = message.code
                    worker.ended.set()
        except (EOFError, OSError):
            return
        finally:
            self.is_lost = True
            self._started.put(None)
            for worker in workers.values():  # whom nobody else would end
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                worker.ended.set()


def search_path() -> list[str]:
    """Give the folders in which this process finds modules, such as plug-ins beside a script."""
    return [os.path.abspath(folder) for folder in sys.path]
