"""The lease of a run: it lets one driver work at a time, and is renewed by a heartbeat."""

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from tagmill.pipeline.ledger import claim_token, give_back_token
from tagmill.pipeline.records import read_json
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Lease:
    """Holds the lease of a run while it is open (a context manager).

    A lease is free if its process on this machine has ended, or if its last heartbeat is older than a minute.
    Entering raises ConfigError if another driver holds it.

    Attributes:
        token: The holder's token, higher than that of any holder before.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._run = uri.rpartition("/")[0]
        self.token = 0
        pid = os.getpid()
        self._owner = {
            "host": socket.gethostname(),
            "pid": pid,
            "process": _process_start(pid),
            "since": time.time(),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        try:
            # Before the lease: who takes it later has the higher token.
            self.token = claim_token(self._run, self._content())
            created = files.create_bytes(self._uri, self._content())
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"cannot write {self._uri} ({reason}); choose another run folder") from error
        if not created:
            try:
                self._take_over()
            except ConfigError:
                give_back_token(self._run, self.token)
                raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_ours():
            files.remove(self._uri)
        give_back_token(self._run, self.token)

    def check(self) -> None:
        """Raise ConfigError if another driver has the run now, as after a long sleep of this machine."""
        holder = _read(self._uri)
        if not self._is_owner(holder):
            who = f"process {holder['pid']} on {holder['host']}" if holder else "nobody"
            raise ConfigError(f"this process lost the lease of the run to {who}")

    def _take_over(self) -> None:
        """Take the lease of a driver that has ended; of several who try, one succeeds."""
        holder = _read(self._uri)
        if holder and is_held(holder):
            raise ConfigError(
                f"the run is driven by process {holder['pid']} on {holder['host']}; wait for it "
                f"or stop it (lease: {self._uri})"
            )
        claim = f"{self._uri}.claim"
        if not files.create_bytes(claim, self._content()):
            raise ConfigError(f"another driver is taking over the run; if that is not so, remove {claim}")
        try:
            # Who claims later than another must not remove that other's fresh lease.
            if _read(self._uri) == holder:
                files.remove(self._uri)
            if not files.create_bytes(self._uri, self._content()):
                raise ConfigError(f"another driver has just taken over the run (lease: {self._uri})")
        finally:
            files.remove(claim)

    def _content(self) -> bytes:
        return json.dumps({**self._owner, "heartbeat": time.time()}).encode()

    def _is_ours(self) -> bool:
        return self._is_owner(_read(self._uri))

    def _is_owner(self, holder: dict[str, Any] | None) -> bool:
        return holder is not None and {name: holder.get(name) for name in self._owner} == self._owner

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if not self._is_ours():
                    return
                files.replace_bytes(self._uri, self._content())
            # A network may fail for a while: the next beat tries again.
            except (OSError, ValueError) as error:
                _log.warning("the lease %s could not be renewed: %s", self._uri, error)


def read_lease(uri: str) -> dict[str, Any] | None:
    """Read who holds a run's lease; None if nobody does."""
    holder = _read(uri)
    return holder if holder and is_held(holder) else None


def _read(uri: str) -> dict[str, Any] | None:
    try:
        holder: dict[str, Any] = read_json(uri, "host", "pid", "heartbeat")
    except FileNotFoundError:
        return None
    return holder


def is_held(holder: dict[str, Any]) -> bool:
    """Tell whether the driver of a lease still lives."""
    if holder["host"] == socket.gethostname():
        return _is_running(holder["pid"]) and holder.get("process") == _process_start(holder["pid"])
    return bool(time.time() - holder["heartbeat"] < STALE_SECONDS)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _process_start(pid: int) -> str | None:
    """Tell when a process began, which tells it from a later one of the same number; None off Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
