"""Worker processes of the local runner: Beam's own, with our logging, stopped by their driver alone.

One process a driver imports what all workers need, and each worker is a fork of it: importing takes a second,
or five with the libraries of models, a fork some milliseconds. That process has a single thread of Python,
and starts no gRPC, no pool of threads and no CUDA: none of these lives through a fork. (The one other thread
is that of pyarrow's allocator, which handles forks itself.) It ends with its driver, and ends its workers.
"""

import gc
import importlib
import io
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, TextIO

from tagmill.runners.commands.logs import configure_logging
from tagmill.runners.commands.terminal import safe
from tagmill.runners.fork_server import Ended, Kill, Start, Started
from tagmill.tag_system.core.plugins import hidden
from tagmill.tag_system.vocabulary import Vocabulary

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that keep numeric libraries from starting threads when they are loaded; workers set their own
number, see `transforms.stage.limit_threads`."""


class _WithoutEcho:
    """Standard error without the tracebacks of failed bundles, which Beam also sends to the driver.

    It is safe to look at: a plug-in's own words come here.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_skipping = False

    def write(self, text: str) -> int:
        """Write a text, unless it is an echo or the end of its line."""
        was_skipping, self._is_skipping = self._is_skipping, "[while running '" in text
        if self._is_skipping or (was_skipping and text == "\n"):
            return len(text)
        self._stream.write(safe(text, keep="\n"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Forker:
    """Forks workers for a driver at the other end of a connection, one request after the other."""

    def __init__(self, driver: Connection) -> None:
        self._driver = driver
        self._workers: set[int] = set()
        # A child's end interrupts the waiting for the driver by a byte in this pair.
        self._bell, ringer = socket.socketpair()
        self._bell.setblocking(False)
        ringer.setblocking(False)
        self._ringer = ringer
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the driver is gone, however it went."""
        with suppress(EOFError, ConnectionError):
            while True:
                ready = wait([self._driver, self._bell])
                self._reap()
                if self._driver in ready:
                    self._serve(self._driver.recv())
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
        for pid in self._workers:
            os.waitpid(pid, 0)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(4096)
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._workers.remove(pid)
                self._driver.send(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _serve(self, request: Start | Kill) -> None:
        if isinstance(request, Kill):
            if request.pid in self._workers:
                os.kill(request.pid, signal.SIGKILL)
            return
        sys.path[:] = request.path
        _import(request.imports)
        gc.freeze()  # what is shared stays shared: a collection in a worker would write on all of it
        pid = _fork()
        if pid == 0:
            self._become_worker(request)
        self._workers.add(pid)
        self._driver.send(Started(pid))

    def _become_worker(self, request: Start) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._driver, self._bell, self._ringer):
                end.close()
            os.chdir(request.directory)
            os.environ.clear()
            os.environ.update(request.environment)
            import_alone(request.imports_alone)
            work()
        except BaseException:  # noqa: BLE001  nothing may go back to where the server runs
            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def _fork() -> int:
    """Fork without what Python 3.12 says of threads: those here are pools of libraries, at rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _import(modules: Iterable[str]) -> None:
    for name in modules:
        with suppress(Exception):  # the worker will say so, to the one who asks for it
            importlib.import_module(name)


def import_alone(modules: Mapping[str, Iterable[str]]) -> None:
    """Import modules, each while others seem not to be installed, which it would import for nothing."""
    for name, unused in modules.items():
        with hidden(list(unused)):
            _import([name])


def work() -> None:
    """Work until the driver ends this process."""
    import numpy as np
    from apache_beam.runners.worker import sdk_worker_main

    from tagmill.transforms.deadline import wind

    wind()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The end comes by a signal, which loses what is kept back.
        sys.stdout.reconfigure(line_buffering=True)
    np.random.seed()  # of the generators, the one that forks would share
    sdk_worker_main.main(sys.argv)


def main() -> None:
    """Import what workers need, and fork them for the driver that started this process."""
    # Ctrl-C in a terminal reaches these processes too; it is for the driver to end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging()
    sys.stderr = _WithoutEcho(sys.stderr)
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    for name in ("apache_beam.runners.worker.sdk_worker_main", "tagmill.transforms.worker"):
        importlib.import_module(name)
    _ = Vocabulary.load().digest  # read once for all workers: their stages name it by its digest
    _Forker(Connection(int(sys.argv[1]))).run()
    os._exit(0)


if __name__ == "__main__":
    main()
