"""Ends a worker process that is stuck in a model: its driver sees that, and how.

The clock is the operating system's, whose signal ends the process even while native code holds Python's
lock. It is one a process, so it is for workers that do one task at a time: those of the local runner.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_is_wound = False


def wind() -> None:
    """Let deadlines end this process from now on; to be called in its main thread."""
    global _is_wound
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _is_wound = True


@contextmanager
def deadline(seconds: float) -> Iterator[Callable[[], None]]:
    """End the process by SIGALRM after some seconds, unless what it gives is called, which begins them anew.

    Does nothing in a process that is not wound, such as one in a debugger, or of another runner.
    """

    def begin() -> None:
        if _is_wound:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    begin()
    try:
        yield begin
    finally:
        if _is_wound:
            signal.setitimer(signal.ITIMER_REAL, 0)
