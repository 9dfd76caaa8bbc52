"""What the records of a run say in short, so that `status` need not read them: megabytes each in a large run.

RUN/summary.json  of each stage its counts, and the digests of the run; which records it was made of

It counts for those very records alone, by their digests and sizes; verification never trusts it. Where it is
missing or of other records, these are read, and the next run writes it again.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from tagmill.pipeline import ledger, records
from tagmill.pipeline.current import current_records
from tagmill.pipeline.dead_letters import UNITS, Counted, reasons_of
from tagmill.pipeline.records import StageRecord, content_digest, root_digest
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.digests import ListDigest
from tagmill.tag_system.core.errors import DamageError
from tagmill.transforms.parts import Unit

SUMMARY = "summary.json"

KEYS = ("version", "made_of", "stages", "bytes", "content")
"""The keys of the note."""

VERSION = 1
"""Raised when the note of the same records says something else; one of another version is as good as none."""

COUNTED = ("in", "out", "dropped", "dead")

RecordId = list[str | int]
"""Stage, generation, name of the record's file, the digest that it begins with, and the sizes of it and of
the table of its rows."""


@dataclass(frozen=True)
class StageSummary:
    """What a record says in short.

    Attributes:
        stage: The stage's name.
        generation: Name of the generation.
        parts: How many parts it lists.
        counts: Sums over the parts, by unit (example, caption) and by what: in, out, dropped, dead.
        dead: Reasons of dead letters, by unit, each with how many there are and the first part of one.
    """

    stage: str
    generation: str
    parts: int
    counts: dict[str, dict[str, int]]
    dead: dict[Unit, list[Counted]]

    @classmethod
    def of(cls, record: StageRecord) -> Self:
        """Sum a record up."""
        counts = {
            "example": {what: record.count("example", what) for what in COUNTED},
            "caption": {what: record.count("caption", what) for what in COUNTED},
        }
        dead = {unit: reasons_of(record, unit) for unit in UNITS}
        return cls(record.stage, record.generation, len(record.parts), counts, dead)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read what was noted."""
        dead = {unit: [Counted(*one) for one in found] for unit, found in values["dead"].items()}
        return cls(**values | {"dead": dead})

    def to_json(self) -> dict[str, Any]:
        """Give what is noted."""
        dead = {unit: [list(one) for one in found] for unit, found in self.dead.items()}
        return vars(self) | {"dead": dead}


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run's current records: the summary of each, and the digests of all."""

    stages: list[StageSummary]
    bytes: str
    content: str


def summary_of(run: RunFolder) -> RunSummary:
    """Sum up the current records of a run: by its note, or by reading them all. Raises DamageError."""
    with ThreadPoolExecutor(files.THREADS) as pool:
        noted = pool.submit(_noted, run)
        now = [one for one in pool.map(lambda stage: _current_id(run, stage), run.stages()) if one]
    known = noted.result()
    if known and known["made_of"] == now:
        stages = [StageSummary.from_json(known["stages"][str(stage)]) for stage, *_ in now]
        return RunSummary(stages, known["bytes"], known["content"])
    found = list(current_records(run))
    return RunSummary([StageSummary.of(one) for one in found], root_digest(found), content_digest(found))


class _Sums:
    """Sums records up one by one, in the order of their stages."""

    def __init__(self) -> None:
        self._made_of: list[RecordId] = []
        self._stages: dict[str, dict[str, Any]] = {}
        self._bytes, self._content = ListDigest(), ListDigest()

    def add(self, record_id: RecordId, record: StageRecord) -> None:
        self._made_of.append(record_id)
        self._stages[record.stage] = StageSummary.of(record).to_json()
        with records.uncollected():
            self._bytes.add(records.stored(record))
            self._content.add(record.content())

    def note(self) -> dict[str, Any]:
        """Give what is noted of the records up to here."""
        digests = {"bytes": self._bytes.hexdigest(), "content": self._content.hexdigest()}
        return {"version": VERSION, "made_of": self._made_of, "stages": self._stages, **digests}


class Summing:
    """Keeps the summary of a run while its stages are recorded one by one, in order.

    What the note says already is not computed again.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._noted: list[RecordId] = (_noted(run) or {"made_of": []})["made_of"]
        self._made_of: list[RecordId] = []
        self._pending: list[tuple[RecordId, StageRecord]] = []
        self._sums = _Sums()

    def add(self, record: StageRecord) -> None:
        """Take the record of the next stage, as it stands in its folder; writes the note if it changes."""
        found = _id_of(self._run, record.stage, record.generation)
        if found is None:  # another driver has forgotten it
            return
        self._made_of.append(found)
        self._pending.append((found, record))
        if self._noted[: len(self._made_of)] != self._made_of:
            self.close()

    def close(self) -> None:
        """Write the note of all stages that were taken, unless it stands so."""
        if self._noted == self._made_of:
            return
        for record_id, record in self._pending:
            self._sums.add(record_id, record)
        self._pending.clear()
        self._noted = list(self._made_of)
        files.replace_bytes(self._run.path(SUMMARY), notes.dump(self._sums.note()))


class SummaryCheck:
    """Compares the summary of a run with its current records, which are read one by one anyway.

    Attributes:
        is_there: Whether the run has a summary.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self.is_there = files.exists(run.path(SUMMARY))
        self._sums = _Sums()

    def add(self, record: StageRecord) -> None:
        """Take the current record of the next stage."""
        found = _id_of(self._run, record.stage, record.generation) if self.is_there else None
        if found is not None:
            self._sums.add(found, record)

    def problems(self) -> Iterator[str]:
        """Say what is wrong with it; one of other records says nothing of these."""
        uri = self._run.path(SUMMARY)
        try:
            noted = notes.read(uri, *KEYS) if self.is_there else None
        except DamageError as error:
            yield str(error)
            return
        found = self._sums.note()
        is_ours = noted and all(noted[key] == found[key] for key in ("version", "made_of"))
        if is_ours and noted != found:
            yield f"{uri} says something else than the records; remove it and run again"


def _noted(run: RunFolder) -> dict[str, Any] | None:
    """Read the note; None if there is none that can be read, which costs time alone."""
    try:
        found = notes.read(run.path(SUMMARY), *KEYS)
    except (FileNotFoundError, DamageError):
        return None
    return found if found["version"] == VERSION else None


def _current_id(run: RunFolder, stage: str) -> RecordId | None:
    generation = run.current(stage)
    return _id_of(run, stage, generation) if generation else None


def _id_of(run: RunFolder, stage: str, generation: str) -> RecordId | None:
    """Tell which record of a generation counts, without reading more than its first bytes; None if none."""
    within = files.join(run.generation(stage, generation), records.FOLDER)
    try:
        sizes = files.list_sizes(within)
    except FileNotFoundError:
        return None
    found = ledger.named_ids(sizes)
    if not found:
        return None
    uri = ledger.note_uri(within, found[-1])
    name, rows = uri.rpartition("/")[2], records.table_name(records.ROWS, found[-1])
    return [stage, generation, name, notes.read_digest(uri), sizes[name], sizes.get(rows, -1)]
