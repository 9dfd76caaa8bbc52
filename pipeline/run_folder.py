"""A run's folder: where everything lies, and what the driver records of each stage.

RUN/run.yaml            the resolved config and the versions of the libraries
RUN/lease.json          who drives the run
RUN/<stage>/_STAGE.json which generation of a stage is current, and which other one is worth keeping
RUN/<stage>/<gen>/      parts, dead/, superseded/, _STAGE.json: the ordered parts with digests and counts
RUN/report/*.parquet    tables derived from the parts
RUN/shards/<gen>/       the dataset
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from tagmill.tag_system.errors import DamageError
from tagmill.transforms import files, parts

RECORD = "_STAGE.json"


@dataclass(frozen=True)
class PartRecord:
    """What the driver remembers of a part, so that planning need not open it."""

    name: str
    fingerprint: str
    digest: str
    counts: dict[str, dict[str, int]]

    @classmethod
    def of(cls, header: parts.Header) -> "PartRecord":
        """Take the record from a part's footer."""
        return cls(header.name, header.fingerprint, header.digest, header.counts)


@dataclass
class StageRecord:
    """A finished stage: what decided its output, its parts in order, and what else its kind needs."""

    stage: str
    version: int
    generation: str
    meaning: dict[str, Any]
    parts: dict[str, PartRecord] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    def count(self, unit: str, what: str) -> int:
        """Sum a count over the parts, such as ("example", "dead")."""
        return sum(part.counts[unit][what] for part in self.parts.values())


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def path(self, *names: str) -> str:
        """Name something in the run's folder."""
        return files.join(self.root, *names)

    def generation(self, stage: str, generation: str) -> str:
        """Name the folder of a stage's generation."""
        return self.path(stage, generation)

    def generations(self, stage: str) -> list[str]:
        """List the generations that a stage has, current or not."""
        return files.list_folders(self.path(stage))

    def current(self, stage: str) -> str | None:
        """Name the current generation of a stage; None before it was first made, and when it is off."""
        found = self._read(self.path(stage, RECORD))
        return found["generation"] if found else None

    def needed(self, stage: str) -> set[str] | None:
        """Name the generations that are current, half made, or the last of a stage that is switched off.

        None if the folder is no stage's.
        """
        found = self._read(self.path(stage, RECORD))
        return {found["generation"], found.get("keep")} - {None} if found else None

    def begin(self, stage: str, generation: str) -> None:
        """Note that a generation is being made; what was current stays so until it is whole."""
        self._point(stage, self.current(stage), keep=generation)

    def switch_off(self, stage: str) -> None:
        """Note that a stage is not of the run any more; its last generation is kept for a change of mind."""
        generation = self.current(stage)
        if generation is not None:
            self._point(stage, None, keep=generation)

    def _point(self, stage: str, generation: str | None, keep: str | None = None) -> None:
        pointer = {"generation": generation} | ({"keep": keep} if keep else {})
        files.replace_bytes(self.path(stage, RECORD), _json(pointer))

    def read_record(self, stage: str, generation: str) -> StageRecord | None:
        """Read what is recorded of a generation; None if it was never finished."""
        found = self._read(files.join(self.generation(stage, generation), RECORD))
        if found is None:
            return None
        try:
            made = {part["name"]: PartRecord(**part) for part in found.pop("parts")}
            return StageRecord(**found, parts=made)
        except (KeyError, TypeError, AttributeError) as error:
            uri = files.join(self.generation(stage, generation), RECORD)
            raise DamageError(f"{uri} is no record of a stage; remove it and run again") from error

    def write_record(self, record: StageRecord) -> None:
        """Record a finished generation and make it the current one."""
        folder = self.generation(record.stage, record.generation)
        files.replace_bytes(files.join(folder, RECORD), record_bytes(record))
        self._point(record.stage, record.generation)

    def forget_parts(self, stage: str, generation: str, is_made_again: Callable[[str], bool]) -> None:
        """Take parts that will be made again out of a generation's record, whatever happens afterwards."""
        record = self.read_record(stage, generation)
        if record and any(map(is_made_again, record.parts)):
            record.parts = {name: part for name, part in record.parts.items() if not is_made_again(name)}
            uri = files.join(self.generation(stage, generation), RECORD)
            files.replace_bytes(uri, record_bytes(record))

    def forget_all(self, stage: str, generation: str) -> None:
        """Remove a generation's record, before its parts are made again all at once."""
        files.remove(files.join(self.generation(stage, generation), RECORD))

    def saved_config(self) -> dict[str, Any] | None:
        """Read the config that the run was last made with; None before it was begun. Raises DamageError."""
        uri = self.path("run.yaml")
        if not files.exists(uri):
            return None
        try:
            config: dict[str, Any] = yaml.safe_load(files.read_bytes(uri))["config"]
            if not isinstance(config, dict):
                raise TypeError("its config is none")
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise DamageError(f"{uri} is damaged; remove it and run again") from error
        return config

    def _read(self, uri: str) -> Any:
        return read_json(uri) if files.exists(uri) else None


def read_json(uri: str) -> Any:
    """Read what the driver or a worker noted. Raises DamageError if it is no JSON."""
    try:
        return json.loads(files.read_bytes(uri))
    except ValueError as error:
        raise DamageError(f"{uri} is damaged ({error}); remove it and run again") from error


def record_bytes(record: StageRecord) -> bytes:
    """Write a stage's record as JSON."""
    return _json({**asdict(record), "parts": [asdict(part) for part in record.parts.values()]})


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def read_headers(folder: str, names: list[str]) -> dict[str, parts.Header]:
    """Read the footers of parts, many at a time. Raises DamageError for one that cannot be read."""
    with ThreadPoolExecutor(16) as pool:
        headers = pool.map(lambda name: _read_header(parts.part_uri(folder, name)), names)
        return dict(zip(names, headers, strict=True))


def _read_header(uri: str) -> parts.Header:
    try:
        return parts.read_header(uri)
    except ValueError as error:
        raise DamageError(f"{uri} cannot be read ({error}); remove it and run again") from error


def committed_parts(folder: str) -> set[str]:
    """List the names of the parts that lie in a generation's folder."""
    return {name.removesuffix(parts.SUFFIX) for name in files.list_names(folder, parts.SUFFIX)}


def lone_leftovers(folder: str) -> list[str]:
    """List the parts whose dead letters or arrays lie in a generation's folder without them.

    A worker was stopped before it could commit the part, or the driver while it moved them away.
    """
    letters = files.list_names(files.join(folder, "dead"), parts.SUFFIX)
    arrays = files.list_names(folder, parts.ARRAY_SUFFIX)
    names = {name.removesuffix(parts.SUFFIX) for name in letters}
    names |= {name.removesuffix(parts.ARRAY_SUFFIX) for name in arrays}
    return sorted(names - committed_parts(folder))


def supersede(folder: str, *uris: str) -> None:
    """Move files that must be made again out of the way; workers only ever create.

    They get the time into their names: one name is superseded again and again.
    """
    for uri in uris:
        if files.exists(uri):
            name = uri.removeprefix(folder).strip("/").replace("/", "-")
            files.move(uri, files.join(folder, "superseded", f"{time.time_ns()}-{name}"))


def supersede_part(folder: str, name: str) -> None:
    """Move a part, its dead letters and its array out of the way."""
    supersede(
        folder,
        parts.part_uri(folder, name),
        parts.dead_uri(folder, name),
        parts.array_uri(folder, name),
    )
