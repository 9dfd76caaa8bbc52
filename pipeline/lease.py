"""The lease of a run: it lets one driver work at a time, and is renewed by a heartbeat.

Whether a driver of another machine lives is not told by its clock, which may be wrong, but by its heartbeat:
one that is watched and does not change has stopped. A driver of this machine is looked up by its process.
"""

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
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.stores import StoreError

HEARTBEAT_SECONDS = 4.0

WATCH_SECONDS = 15.0
"""How long the heartbeat of another machine is watched before its driver counts as ended: three beats."""

CLAIM_SECONDS = 5.0
"""The same for a claim, which its owner holds for some file operations."""

LOOK_SECONDS = 0.5
"""How often a heartbeat is looked at while it is watched."""

_log = logging.getLogger(__name__)


class Lease:
    """Holds the lease of a run while it is open (a context manager).

    A lease is free if its process on this machine has ended, or if its heartbeat from another one has
    stopped, which takes `WATCH_SECONDS` to see. Entering raises ConfigError if another driver holds it, and
    DamageError if what is there is not a lease.

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
            # A store whose answer is lost is asked again, and then finds what it was given before.
            created = files.create_bytes(self._uri, self._content()) or self._is_ours()
        except StoreError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"cannot write {self._uri} ({reason}); choose another run folder") from error
        if not created:
            try:
                self._take_over()
            except BaseException:
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
        if holder and _lives(self._uri, holder, WATCH_SECONDS):
            raise ConfigError(
                f"the run is driven by process {holder['pid']} on {holder['host']}; wait for it "
                f"or stop it (lease: {self._uri})"
            )
        claim = f"{self._uri}.claim"
        if not files.create_bytes(claim, self._content()) and not self._take_claim(claim):
            raise ConfigError(f"another driver is taking over the run; if that is not so, remove {claim}")
        try:
            # Who claims later than another must not remove that other's fresh lease.
            if _read(self._uri) == holder:
                files.remove(self._uri)
            if not files.create_bytes(self._uri, self._content()):
                raise ConfigError(f"another driver has just taken over the run (lease: {self._uri})")
        finally:
            files.remove(claim)

    def _take_claim(self, claim: str) -> bool:
        """Take the claim of a driver that was killed while it took the run over; False if it still does."""
        found = _bytes(claim)
        try:
            holder = None if found is None else _parse(claim)
        except (DamageError, FileNotFoundError):  # a claim says nothing that could be lost
            holder = None
        is_own = holder is not None and holder["host"] == self._owner["host"]
        if holder is not None and is_own and is_held(holder):
            return False
        if found is not None and not is_own and _changes(claim, found, CLAIM_SECONDS):
            return False
        if _bytes(claim) == found:
            files.remove(claim)
        return files.create_bytes(claim, self._content())

    def _content(self) -> bytes:
        return json.dumps({**self._owner, "heartbeat": time.time()}).encode()

    def _is_ours(self) -> bool:
        try:
            return self._is_owner(_read(self._uri))
        except DamageError:
            return False

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
    """Read who holds a run's lease; None if nobody does. Raises DamageError if it is not a lease.

    The driver of another machine is not watched: see `is_held`.
    """
    holder = _read(uri)
    return holder if holder and is_held(holder) else None


def _read(uri: str) -> dict[str, Any] | None:
    try:
        return _parse(uri)
    except FileNotFoundError:
        return None


def _parse(uri: str) -> dict[str, Any]:
    holder: dict[str, Any] = read_json(uri, "host", "pid", "heartbeat")
    pid = holder["pid"]
    fits = isinstance(holder["host"], str) and isinstance(pid, int) and 0 < pid < 1 << 31
    if not fits or isinstance(pid, bool) or not isinstance(holder["heartbeat"], int | float):
        raise DamageError(
            f"{uri} is damaged (it does not name a process and its heartbeat); remove it and run again"
        )
    return holder


def _bytes(uri: str) -> bytes | None:
    try:
        return files.read_bytes(uri)
    except FileNotFoundError:
        return None


def is_held(holder: dict[str, Any]) -> bool:
    """Tell whether the driver of a lease lives; one of another machine does as far as is known."""
    if holder["host"] == socket.gethostname():
        return _is_running(holder["pid"]) and holder.get("process") == _process_start(holder["pid"])
    return True


def _lives(uri: str, holder: dict[str, Any], seconds: float) -> bool:
    """Tell whether the driver of a lease lives, and watch it if it is of another machine."""
    if holder["host"] == socket.gethostname():
        return is_held(holder)
    _log.warning(
        "%s is of process %s on %s: watching for up to %g s whether its heart beats",
        uri,
        holder["pid"],
        holder["host"],
        seconds,
    )
    return _changes(uri, _bytes(uri), seconds)


def _changes(uri: str, before: bytes | None, seconds: float) -> bool:
    """Watch a file until it is another one, or the time is over; one that goes has ended."""
    end = time.monotonic() + seconds
    while before is not None and time.monotonic() < end:
        time.sleep(min(LOOK_SECONDS, seconds / 4))
        now = _bytes(uri)
        if now != before:
            return now is not None
    return False


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
