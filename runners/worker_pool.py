"""Looks after the pool that starts a portable runner's workers: a service may wait for ever for one that is
gone, and Prism ends itself if there is none when a job comes.
"""

import json
import socket
import time
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.portability.common_urns import environments

from tagmill.tag_system.core.errors import ConfigError, StoppedError

LOST_SECONDS = 20
"""How long a pool may be out of reach, as one that is just being started, before it counts as gone."""

LOOK_SECONDS = 3
"""How often a pool is looked for, and how long a connection may take."""

CHECK = "--pool-check"
"""The flag that says whether the pool can be reached from where the driver runs."""


class ExternalPool:
    """The pool of a run's jobs.

    Args:
        host: Its host.
        port: The port that it listens on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._was_there = False
        self._seen = self._looked = 0.0

    def expect(self) -> None:
        """Wait until the pool answers, before a job is handed over.

        Raises ConfigError if it never answered, StoppedError if it did before.
        """
        self._seen = time.monotonic()
        while not self._answers():
            if self._is_lost() and self._was_there:
                raise StoppedError(self._gone())
            if self._is_lost():
                raise ConfigError(
                    f"no pool of workers answers at {self} within {LOST_SECONDS} s: start it with `python -m "
                    f"apache_beam.runners.worker.worker_pool_main --service_port={self._place[1]}`, or give "
                    f"{CHECK}=off after -- if the service reaches one and this machine does not"
                )
            time.sleep(0.2)

    def look(self) -> None:
        """See now and again whether the pool is there. Raises StoppedError once it is gone."""
        if time.monotonic() - self._looked > LOOK_SECONDS and not self._answers() and self._is_lost():
            raise StoppedError(self._gone())

    def __str__(self) -> str:
        return "{}:{}".format(*self._place)

    def _answers(self) -> bool:
        try:
            socket.create_connection(self._place, LOOK_SECONDS).close()
        except OSError:
            return False
        else:
            self._was_there, self._seen = True, time.monotonic()
            return True
        finally:
            self._looked = time.monotonic()

    def _is_lost(self) -> bool:
        return time.monotonic() - self._seen > LOST_SECONDS

    def _gone(self) -> str:
        return (
            f"the pool of workers at {self} does not answer any more; see its log, start it again, and run "
            "the same command to go on"
        )


def pool_of(options: PipelineOptions) -> ExternalPool | None:
    """Give the pool that Beam's flags name, None if workers come from elsewhere. Raises ConfigError."""
    portable = options.view_as(PortableOptions)
    if portable.environment_type not in ("EXTERNAL", environments.EXTERNAL.urn):
        return None
    named = portable.environment_config or portable.lookup_environment_option("external_service_address")
    address = str(named or "").strip()
    if address.startswith("{"):
        try:
            address = str(json.loads(address)["url"])
        except (ValueError, KeyError):
            address = ""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 1 << 16:
        raise ConfigError("--environment_type=EXTERNAL needs --environment_config=HOST:PORT of a pool")
    return ExternalPool(host.strip("[]"), int(port))


def take_pool_check(flags: Sequence[str]) -> tuple[list[str], bool]:
    """Take our flag out of Beam's: the others, and whether the pool is looked after. Raises ConfigError."""
    own = [flag for flag in flags if flag.partition("=")[0] == CHECK]
    for flag in own:
        if flag not in (f"{CHECK}=on", f"{CHECK}=off"):
            raise ConfigError(f"{flag}: write it as {CHECK}=on or {CHECK}=off")
    return [flag for flag in flags if flag not in own], f"{CHECK}=off" not in own
