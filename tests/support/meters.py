"""The CPU time of machines, of processes that have ended as well."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

from machines import Machine

SECONDS = 0.2
"""Between two looks; what a process takes between the last one and its end is not seen."""


class Meter:
    """Adds up the CPU seconds of all processes of machines; open it as a context.

    Args:
        machines: Gives the machines, which may become more.
    """

    def __init__(self, machines: Callable[[], Sequence[Machine]]) -> None:
        self._machines = machines
        self._seen: dict[psutil.Process, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch CPU time", daemon=True)

    def __enter__(self) -> "Meter":
        self._look()
        self._before = self.seconds
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    @property
    def seconds(self) -> float:
        """CPU seconds of user and system, of all processes that were seen."""
        return sum(self._seen.values())

    @property
    def taken(self) -> float:
        """Those since the beginning."""
        return self.seconds - self._before

    def _watch(self) -> None:
        while not self._ended.wait(SECONDS):
            self._look()

    def _look(self) -> None:
        for machine in self._machines():
            for process in machine.processes():
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    self._seen[process] = times.user + times.system
