"""The note of the job that a driver has handed to a service, which goes on if the driver is killed."""

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files, notes

NAME = "job.json"
"""The note's name in the run's folder."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobNote:
    """A job that was handed over, or was just going to be.

    Attributes:
        service: The runner's name.
        project: The project that pays for it.
        region: Where it runs.
        job: Its name.
        stage: The stage that it works for.
    """

    service: str
    project: str
    region: str
    job: str
    stage: str

    def write(self, uri: str) -> None:
        """Note it, before the job is handed over: whoever finds the note looks whether there is one."""
        files.replace_bytes(uri, notes.dump(asdict(self)))

    @classmethod
    def read(cls, uri: str) -> "JobNote | None":
        """Read what was noted; None if nothing was. Raises DamageError."""
        with suppress(FileNotFoundError):
            found: dict[str, Any] = notes.read(uri, *cls.__dataclass_fields__)
            return cls(**{name: str(found[name]) for name in cls.__dataclass_fields__})
        return None


@runtime_checkable
class JobKeeper(Protocol):
    """An engine that can wait for a job that an earlier driver left."""

    note: str

    def wait_for(self, left: JobNote) -> bool:
        """Wait until it has ended; False if it is not of this engine's place."""


def attend(folder: RunFolder, engine: object) -> None:
    """See to a job that an earlier driver of the run left: wait for it, or say that it is there."""
    uri = folder.path(NAME)
    if isinstance(engine, JobKeeper):
        engine.note = uri
    left = JobNote.read(uri)
    if left is None:
        return
    if isinstance(engine, JobKeeper) and engine.wait_for(left):
        files.remove(uri)
        return
    _log.warning(
        "%s: an earlier driver left the job %s on %s (project %s, region %s), which may still run and cost; "
        "what both make is the same. Once it has ended, remove %s",
        left.stage,
        left.job,
        left.service.capitalize(),
        left.project,
        left.region,
        uri,
    )
