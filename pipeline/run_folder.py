"""The layout of a run's folder, and which generation of each stage is current.

RUN/run.yaml                          the resolved config and the versions of the libraries
RUN/whole.json                        what the run held when it was last whole, see `growth`
RUN/summary.json                      what the records say in short, see `summary`
RUN/job.json                          the job that a driver handed to a service, see `runners/left_job.py`
RUN/lease.json                        who drives the run; RUN/tokens/ the tokens of all drivers
RUN/<stage>/_STAGE-<token>-<n>.json   which generation is current, and which other one is worth keeping
RUN/<stage>/<gen>/                    parts, dead/, superseded/, records/: what is known of the parts
RUN/report/*.parquet                  tables derived from the parts; seals.json has their digests
RUN/shards/<gen>/                     the dataset
"""

import hashlib
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from functools import lru_cache
from typing import Any

import yaml

from tagmill.pipeline import ledger, records
from tagmill.pipeline.records import StageRecord
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.config import parse_yaml
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.transforms import failures, image_copies, parts, task_file
from tagmill.transforms.stage import WORK

FORMAT = 3
"""Of run folders: raised when parts or records of an older one can no longer be read."""


REPORT, SEALS, MADE_OF = "report", "seals.json", "made_of"
"""The folder of the report, in it the note of the seals of its tables, and there what tells of what state of
the run they were made."""

UNNEEDED = ("superseded", WORK, failures.FOLDER, task_file.FOLDER)
"""Folders of a generation with what a driver at work needs, and nobody afterwards."""

CONFIG, DIGEST = "run.yaml", "# sha256: "
"""The file of a run's config, and how its last line begins."""


class RunFolder:
    """Paths and records of one run.

    Attributes:
        root: The folder.
        token: Token of the driver that writes, see `ledger`.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self.token = 0
        self._others: list[int] | None = None
        self._read: dict[str, tuple[str, StageRecord]] = {}

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
        return self._pointer(stage).get("generation")

    def needed(self, stage: str) -> set[str] | None:
        """Name the generations that are current, half made, or the last of a stage that is switched off.

        None if the folder is not a stage's.
        """
        found = self._pointer(stage)
        return {found["generation"], *found["keep"]} - {None} if found else None

    def begun(self, stage: str) -> list[str]:
        """Name the generations of a stage that are half made: all of them before one is current."""
        found = self._pointer(stage)
        if not found:
            return self.generations(stage)
        return [] if found["generation"] is None else found["keep"]

    def begin(self, stage: str, generation: str) -> None:
        """Note that a generation is being made; what was current stays so until it is whole.

        The first of a stage needs no note: nothing else could be taken for it.
        """
        if found := self._pointer(stage):
            self._point(stage, found["generation"], [*found["keep"], generation])

    def switch_off(self, stage: str, *, keep: bool = True) -> None:
        """Note that a stage is not of the run any more; its last generation is kept for a change of mind, if
        that may be.
        """
        generation = self.current(stage)
        if generation is not None and keep:
            self._point(stage, None, [generation])
        elif not keep and self._pointer(stage):
            self._point(stage, None)

    def _pointer(self, stage: str) -> dict[str, Any]:
        uri = ledger.latest(self.path(stage))
        return notes.read(uri, "generation", "keep") if uri else {}

    def _point(self, stage: str, generation: str | None, keep: Iterable[str] = ()) -> None:
        pointer = {"generation": generation, "keep": sorted(set(keep) - {generation})}
        if self._pointer(stage) != pointer or self._is_contested(self.path(stage)):
            ledger.add(self.path(stage), self.token, lambda _: notes.dump(pointer))

    def _is_contested(self, folder: str) -> bool:
        """Tell whether an earlier driver that did not end could still outdo a folder's note.

        Then what is right is written once more, under this driver's token.
        """
        latest = ledger.note_ids(folder)[-1][0]
        return any(latest < token < self.token for token in self._rivals())

    def _rivals(self) -> list[int]:
        if self._others is None:
            self._others = [token for token in ledger.tokens(self.root) if token < self.token]
        return self._others

    def read_record(self, stage: str, generation: str) -> StageRecord | None:
        """Read what is recorded of a generation; None if it was never finished.

        The last one is remembered, as records never change: leave it as it is.
        """
        folder = self.generation(stage, generation)
        uri = records.latest(folder)
        if uri is None:
            return None
        if self._read.get(folder, ("",))[0] != uri:
            self._read.clear()
            record = records.read_record_at(uri, folder)
            if record is None:
                return None
            self._read[folder] = uri, record
        return self._read[folder][1]

    def write_record(
        self, record: StageRecord, tables: Mapping[str, Callable[[], bytes]] | None = None
    ) -> None:
        """Record a finished generation, unless it stands so, and make it the current one.

        `tables` make the other tables that are to lie beside the record, by what they are of.
        """
        folder = self.generation(record.stage, record.generation)
        known = self.read_record(record.stage, record.generation)
        if (
            known is not None
            and known == record
            and all(known.has_table(what) for what in tables or ())
            and not self._is_contested(files.join(folder, records.FOLDER))
        ):
            record.rows, record.rows_seal, record.tables = known.rows, known.rows_seal, known.tables
        else:
            made = {what: make() for what, make in (tables or {}).items()}
            records.write_record(folder, self.token, record, made)
        self._point(record.stage, record.generation)

    def forget_parts(self, stage: str, generation: str, names: Set[str]) -> None:
        """Take parts that will be made again out of a generation's record, whatever happens afterwards."""
        record = self.read_record(stage, generation)
        if record and record.parts.keys() & names:
            others = {name: part for name, part in record.parts.items() if name not in names}
            left = replace(record, parts=others, tables={})
            records.write_record(self.generation(stage, generation), self.token, left)

    def forget_all(self, stage: str, generation: str) -> None:
        """Note that a generation is not finished, before its parts are made again all at once."""
        if self.read_record(stage, generation):
            records.forget(self.generation(stage, generation), self.token)

    def stages(self) -> list[str]:
        """Name the stages that the run knows, switched on or not, in the order that examples pass them.

        Raises as `saved_config`.
        """
        saved = self._saved()
        return saved["stages"] if saved else []

    def merged_order(self, names: list[str]) -> list[str]:
        """Order the stages `names` of a run with those that it had before, which keep their places."""
        merged = list(names)
        before = self.stages()
        for place, name in enumerate(before):
            if name not in merged:
                merged.insert(merged.index(before[place - 1]) + 1 if place else 0, name)
        return merged

    def finished(self) -> dict[str, str]:
        """Give the generation of each stage when the run was last whole; empty while it is not.

        Raises as `saved_config`.
        """
        saved = self._saved()
        return saved["finished"] if saved else {}

    def save_config(self, values: Mapping[str, Any]) -> None:
        """Write run.yaml, which ends in the digest of its lines."""
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).encode()
        digest = hashlib.sha256(text).hexdigest()
        files.replace_bytes(self.path(CONFIG), text + f"{DIGEST}{digest}\n".encode())

    def is_config_sound(self) -> bool:
        """Tell whether run.yaml is as it was written."""
        text, mark, digest = files.read_bytes(self.path(CONFIG)).rpartition(DIGEST.encode())
        return bool(mark) and digest == hashlib.sha256(text).hexdigest().encode() + b"\n"

    def saved_config(self) -> dict[str, Any] | None:
        """Read the config that the run was last made with; None before it was begun.

        Raises DamageError, and ConfigError for a run of another version.
        """
        saved = self._saved()
        return None if saved is None else saved["config"]

    def _saved(self) -> dict[str, Any] | None:
        uri = self.path(CONFIG)
        if not files.exists(uri):
            return None
        try:
            saved = _parsed(files.read_bytes(uri))
            if not isinstance(saved["config"], dict) or "part_size" not in saved["config"]:
                raise TypeError("its config is not valid")
        except (ValueError, KeyError, TypeError) as error:
            raise DamageError(f"{uri} is damaged; remove it and run again") from error
        if saved.get("format") != FORMAT:
            raise ConfigError(
                f"{self.root} was made by another version of tagmill, which this one cannot read; name "
                "another run folder, in which everything is made again"
            )
        if not (isinstance(saved.get("stages"), list) and isinstance(saved.get("finished"), dict)):
            raise DamageError(f"{uri} is damaged; remove it and run again")
        return saved


@lru_cache(maxsize=1)  # a driver asks for what it says again and again
def _pickled(text: bytes) -> bytes:
    return pickle.dumps(parse_yaml(text))


def _parsed(text: bytes) -> dict[str, Any]:
    """Parse run.yaml; its values are the caller's own. Raises ValueError."""
    saved: dict[str, Any] = pickle.loads(_pickled(text))
    return saved


def committed_parts(folder: str) -> set[str]:
    """List the names of the parts that lie in a generation's folder."""
    return named_parts(files.list_names(folder))


def named_parts(listed: Iterable[str]) -> set[str]:
    """Pick the names of parts among those of the files in a generation's folder."""
    return {name.removesuffix(parts.SUFFIX) for name in listed if name.endswith(parts.SUFFIX)}


def lone_leftovers(folder: str) -> list[str]:
    """List the parts that are not in a generation's folder, though files that belong beside them are.

    A worker was stopped before it could commit the part, or the driver while it moved them away.
    """
    letters = files.list_names(files.join(folder, "dead"), parts.SUFFIX)
    names = {name.removesuffix(parts.SUFFIX) for name in letters}
    for suffix in (parts.ARRAY_SUFFIX, image_copies.SUFFIX):
        names |= {name.removesuffix(suffix) for name in files.list_names(folder, suffix)}
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
    """Move a part, its dead letters, its array and its copies of images out of the way."""
    supersede(
        folder,
        parts.part_uri(folder, name),
        parts.dead_uri(folder, name),
        parts.array_uri(folder, name),
        image_copies.uri_of(folder, name),
    )
