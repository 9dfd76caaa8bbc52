"""Locks between processes, which the end of a process releases however it comes."""

import errno
import fcntl
from contextlib import suppress
from typing import IO


def acquire(stream: IO[str]) -> bool:
    """Take the lock of a file that is open for writing; tells whether no other process holds it.

    Unlike those of flock, such a lock is not inherited: a worker that outlives its killed parent for some
    seconds does not hold it. Some file systems of clusters have no locks: there everybody gets one.
    """
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def wait(stream: IO[str]) -> None:
    """Wait until this process holds the lock of a file that is open for writing, where there are locks."""
    with suppress(OSError):
        fcntl.lockf(stream, fcntl.LOCK_EX)
