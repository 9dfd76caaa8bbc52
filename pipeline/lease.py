"""A run has one driver at a time: a lease with a heartbeat holds others off."""

import json
import os
import socket
import threading
import time
from typing import Any

from tagmill.tag_system.errors import ConfigError
from tagmill.transforms import files

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0


class Lease:
    """Holds the lease of a run while it is open (a context manager).

    A lease is free if its driver has ended: its process is gone, where that is this machine, or its last
    heartbeat is older than a minute. Raises ConfigError on entry if another driver holds it.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        if not files.create_bytes(self._uri, self._content()):
            holder = json.loads(files.read_bytes(self._uri))
            if is_held(holder):
                raise ConfigError(
                    f"the run is driven by process {holder['pid']} on {holder['host']}; wait for it "
                    f"or stop it (lease: {self._uri})"
                )
            # Of two drivers that find the same dead lease, one gets to move it away.
            files.remove(self._uri)
            if not files.create_bytes(self._uri, self._content()):
                raise ConfigError(f"another driver has just taken over the run (lease: {self._uri})")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        files.remove(self._uri)

    def _content(self) -> bytes:
        return json.dumps({**self._owner, "heartbeat": time.time()}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            files.replace_bytes(self._uri, self._content())


def read_lease(uri: str) -> dict[str, Any] | None:
    """Read who holds a run's lease; None if nobody does."""
    if not files.exists(uri):
        return None
    holder: dict[str, Any] = json.loads(files.read_bytes(uri))
    return holder if is_held(holder) else None


def is_held(holder: dict[str, Any]) -> bool:
    """Tell whether the driver of a lease still lives."""
    if holder["host"] == socket.gethostname():
        return _is_running(holder["pid"])
    return bool(time.time() - holder["heartbeat"] < STALE_SECONDS)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
