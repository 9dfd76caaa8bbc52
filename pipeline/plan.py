"""Planning: which parts of which stages must be made, and why.

One rule serves first runs, resumes, new input and changed configs: a part serves if it has the fingerprint
that its inputs and config now give, and was made for all rows that live now. One that serves in another
generation of the stage is adopted; what does not serve is made.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tagmill.pipeline.accounts import account, known_parts
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder, committed_parts
from tagmill.pipeline.sources import FoundSource
from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import equal_rows, value_digest
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.stage import GlobalStage, PartStage, PartTask, Stage, part_fingerprint, slices_of

CLUSTERS = "clusters.parquet"


@dataclass(frozen=True)
class Adoption:
    """Files of another generation that serve in this one: names in the folder `source`."""

    source: str
    names: tuple[str, ...]
    bytes: int


@dataclass
class StagePlan:
    """What a stage has and what it still needs.

    `names` are the parts that it will have, in order, as far as they are known; `tasks` what must be made;
    `done` the records of the parts that stay or are adopted, `adopted` where the latter come from. `unknown`
    says that inputs are still to be made, so more may follow; `unfinished` that what is written around the
    parts is missing or stale.
    """

    stage: Stage[Any]
    generation: str
    folder: str
    names: list[str]
    done: dict[str, PartRecord]
    tasks: list[Any]
    reasons: list[str] = field(default_factory=list)
    adopted: dict[str, Adoption] = field(default_factory=dict)
    unknown: bool = False
    unfinished: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Tell whether there is nothing to do."""
        return not (self.tasks or self.adopted or self.unknown or self.unfinished)

    @property
    def is_known(self) -> bool:
        """Tell whether it is known what the stage will have, without making anything."""
        return not (self.tasks or self.unknown or self.unfinished)


@dataclass
class Upstream:
    """What is known of the stages before one: their plans, and their records once they are finished.

    `gone` are the rows of each part of ingest that do not live after the last finished stage.
    """

    run: RunFolder
    plans: dict[str, StagePlan] = field(default_factory=dict)
    records: dict[str, StageRecord] = field(default_factory=dict)
    sources: dict[str, FoundSource] = field(default_factory=dict)
    """The source of every part of ingest."""
    gone: dict[str, int] = field(default_factory=dict)
    rows: str = ""
    """The table that says so, of the last stage whose record is written."""

    def close(self, record: StageRecord) -> None:
        """Take in the record of a finished stage."""
        self.records[record.stage] = record
        if record.parts.keys() == self.sources.keys():
            self.gone = {name: part.gone for name, part in record.parts.items()}
            self.rows = record.rows

    def names(self) -> list[str]:
        """Name the parts of ingest, in order."""
        return list(self.records["ingest"].parts)

    def came(self) -> dict[str, int]:
        """Give the rows that come in now, by part."""
        ingested = self.records["ingest"].parts
        return {name: part.made_for & ~self.gone[name] for name, part in ingested.items()}

    def digests(self, stage: Stage[Any], inputs: Iterable[str], name: str) -> dict[str, str]:
        """Give what a part depends on by way of the same-named parts of its inputs."""
        return {
            other: self.records[other].parts[name].digest_of(stage.slices.get(other))
            for other in inputs
            if other not in stage.tables
        }

    def by_row(self, stage: Stage[Any], inputs: Iterable[str], name: str) -> dict[str, str]:
        """Read what a part's inputs say a row of the slices that it depends on; see `digests.row_digests`."""
        found = {}
        for other, part_slice in slices_of(stage, inputs):
            plan = self.plans[other]
            folder = plan.adopted[name].source if name in plan.adopted else plan.folder
            found[other] = parts.read_header(parts.part_uri(folder, name)).by_row[part_slice]
        return found

    def task(
        self, stage: Stage[Any], inputs: Iterable[str], name: str, fingerprint: str, base: str = ""
    ) -> PartTask:
        """Make the task of a part."""
        where = {}
        for other in inputs:
            folder = self.plans[other].folder
            is_table = other in stage.tables
            where[other] = files.join(folder, CLUSTERS) if is_table else parts.part_uri(folder, name)
        gone = self.rows if self.gone[name] else ""
        return PartTask(name, fingerprint, where, self.sources[name].images, gone, base)

    def is_open(self, inputs: Iterable[str]) -> bool:
        """Tell whether some input is still to be made."""
        return any(name not in self.records for name in inputs)


def generation_of(stage: Stage[Any], inputs: Mapping[str, str]) -> str:
    """Name the generation of a stage, from its meaning and its inputs' generations."""
    meaning = {
        "stage": stage.name,
        "version": stage.version,
        "meaning": stage.meaning,
        "inputs": dict(inputs),
    }
    return value_digest(meaning)[:12]


def plan_parts(stage: PartStage[Any], generation: str, inputs: list[str], upstream: Upstream) -> StagePlan:
    """Plan a stage that makes one part from the same-named parts of its inputs."""
    folder = upstream.run.generation(stage.name, generation)
    plan = StagePlan(stage, generation, folder, [], {}, [])
    if upstream.is_open(inputs):
        plan.unknown = True
        return plan
    plan.names = upstream.names()
    came = upstream.came()
    clusters = ClusterSlices(upstream) if "cluster" in inputs else None
    stock = Stock(upstream.run, stage, generation, plan.names)
    for name in plan.names:
        digests: dict[str, Any] = upstream.digests(stage, inputs, name)
        if clusters:
            digests["cluster"] = clusters.digest(name)
        if stage.follows_rows:
            digests["rows"] = bitmaps.dump(came[name]).hex()
        base = part_fingerprint(stage, {k: v for k, v in digests.items() if k not in stage.slices})
        wanted = Wanted(name, part_fingerprint(stage, digests), came[name], base)
        if not stock.serve(plan, wanted, partial(upstream.by_row, stage, inputs, name)):
            plan.tasks.append(upstream.task(stage, inputs, name, wanted.fingerprint, base))
    ingest = upstream.plans["ingest"].folder
    for source, found in _by_folder(plan).items():
        plan.done |= account(source, ingest, found, came, upstream.gone)
    return plan


def _by_folder(plan: StagePlan) -> dict[str, dict[str, PartRecord]]:
    """Group the parts that serve by the folder in which they lie now."""
    found: dict[str, dict[str, PartRecord]] = {}
    for name, part in plan.done.items():
        source = plan.adopted[name].source if name in plan.adopted else plan.folder
        found.setdefault(source, {})[name] = part
    return found


@dataclass(frozen=True)
class Wanted:
    """A part that a plan asks for: its fingerprint, the rows that come in, and its `base` (see `Header`)."""

    name: str
    fingerprint: str
    came: int
    base: str = ""


class Stock:
    """The parts of a stage that are there, in its generation and in others."""

    def __init__(self, run: RunFolder, stage: Stage[Any], generation: str, names: list[str]) -> None:
        self._run, self._stage, self._names = run, stage, names
        self._generation = generation
        self._here = known_parts(run, stage.name, generation, names)
        record = run.read_record(stage.name, generation)
        self._lost = set(record.parts if record else ()) - self._here.keys()
        self._others: list[tuple[str, dict[str, PartRecord]]] | None = None

    def serve(self, plan: StagePlan, wanted: Wanted, by_row: Callable[[], dict[str, str]]) -> bool:
        """Put a part that serves into the plan, from here or elsewhere; else say why there is none.

        `by_row` reads what the inputs say a row, of which it depends on slices.
        """
        name, why = wanted.name, "not made yet"
        for folder, found in self._folders():
            part = found.get(name)
            if part is None:
                continue
            reason = _why_not(part, wanted)
            if reason == CHANGED and self._is_equal_where_it_counts(folder, part, wanted, by_row):
                part, reason = replace(part, fingerprint=wanted.fingerprint), ""
            if not reason and folder != plan.folder and not self._is_sound(folder, part):
                reason = "its copy is damaged"
            if not reason:
                plan.done[name] = part
                if folder != plan.folder:
                    plan.adopted[name] = Adoption(folder, tuple(part.files()), part.size)
                return True
            if folder == plan.folder or reason != CHANGED:
                why = reason
        plan.reasons.append(f"{name}: {why}")
        return False

    def _is_equal_where_it_counts(
        self, folder: str, part: PartRecord, wanted: Wanted, by_row: Callable[[], dict[str, str]]
    ) -> bool:
        """Tell whether a part's inputs changed in no row that lives.

        Digests of slices are of all rows that the inputs were made for: these are others after a filter came.
        """
        if not part.base or part.base != wanted.base or wanted.came & ~part.made_for:
            return False
        read, rows = parts.read_header(parts.part_uri(folder, part.name)).read, bitmaps.numbers(wanted.came)
        now = by_row()
        return all(equal_rows(read.get(other, ""), digests, rows) for other, digests in now.items())

    def _is_sound(self, folder: str, part: PartRecord) -> bool:
        """Check a part that was here and is not: who removed it for damage must not get its twin back."""
        if part.name not in self._lost:
            return True
        return parquet.seal(files.read_bytes(parts.part_uri(folder, part.name))) == part.seal

    def _folders(self) -> Iterator[tuple[str, dict[str, PartRecord]]]:
        """Give what this generation has, and then what others have, which is read if it is needed."""
        yield self._run.generation(self._stage.name, self._generation), self._here
        if self._others is None:
            self._others = [
                (
                    self._run.generation(self._stage.name, other),
                    known_parts(self._run, self._stage.name, other, self._names),
                )
                for other in self._run.generations(self._stage.name)
                if other != self._generation
            ]
        yield from self._others


CHANGED = "its inputs changed"


def _why_not(part: PartRecord, wanted: Wanted) -> str:
    """Say why a part does not serve; empty if it does."""
    if part.fingerprint != wanted.fingerprint:
        return CHANGED
    if hidden := wanted.came & ~part.made_for:
        return f"made when {hidden.bit_count()} of its rows were filtered out"
    return ""


def plan_global(stage: GlobalStage[Any], generation: str, inputs: list[str], upstream: Upstream) -> StagePlan:
    """Plan a stage that reads all parts at once: all of it, or nothing."""
    folder = upstream.run.generation(stage.name, generation)
    plan = StagePlan(stage, generation, folder, [], {}, [])
    if upstream.is_open(inputs):
        plan.unknown = True
        return plan
    plan.names = upstream.names()
    came = upstream.came()
    digests = {
        name: upstream.digests(stage, inputs, name) | {"rows": bitmaps.dump(came[name]).hex()}
        for name in plan.names
    }
    fingerprint = part_fingerprint(stage, {"parts": list(digests.items())})
    plan.more = {"fingerprint": fingerprint}
    for other in [generation, *(g for g in upstream.run.generations(stage.name) if g != generation)]:
        record = upstream.run.read_record(stage.name, other)
        if record and record.more["fingerprint"] == fingerprint and _is_there(stage, record, upstream.run):
            plan.more = record.more
            plan.done = {
                name: replace(part, gone=upstream.gone[name] | part.lost)
                for name, part in record.parts.items()
            }
            if other != generation:
                _adopt_all(plan, upstream.run.generation(stage.name, other))
            return plan
    known = upstream.run.read_record(stage.name, generation)
    plan.reasons = ["not made yet" if known is None else "its inputs changed"]
    plan.tasks = [
        upstream.task(stage, inputs, name, part_fingerprint(stage, digests[name])) for name in plan.names
    ]
    return plan


def _is_there(stage: GlobalStage[Any], record: StageRecord, run: RunFolder) -> bool:
    folder = run.generation(stage.name, record.generation)
    if not record.parts:
        return files.exists(files.join(folder, CLUSTERS))
    return record.parts.keys() <= committed_parts(folder)


def _adopt_all(plan: StagePlan, source: str) -> None:
    """Adopt all that another generation has of a stage that reads all parts at once."""
    if plan.done:
        plan.adopted = {n: Adoption(source, tuple(p.files()), p.size) for n, p in plan.done.items()}
    else:
        size = files.size_and_stamp(files.join(source, CLUSTERS))[0]
        plan.adopted = {CLUSTERS: Adoption(source, (CLUSTERS,), size)}


class ClusterSlices:
    """Digests of the cluster rows that a part of clean depends on: those of its own tags."""

    def __init__(self, upstream: Upstream) -> None:
        self._rows: dict[str, str] = upstream.records["cluster"].more["rows"]
        self._parts = upstream.records["embed"].parts

    def digest(self, name: str) -> list[list[str | None]]:
        """List tag and digest of every cluster row that matters for a part; none if no region of it lives."""
        return [[tag, self._rows.get(tag)] for tag in self._parts[name].tags]


def stale_parts(plan: StagePlan) -> list[str]:
    """Name the parts that are there and must be made again, or make way for others."""
    there = committed_parts(plan.folder)
    return [name for name in [*(task.name for task in plan.tasks), *plan.adopted] if name in there]


def adopt(plan: StagePlan) -> None:
    """Give what serves in other generations a place in this one; see `files.adopt`."""

    def one(adoption: Adoption) -> None:
        for name in adoption.names:  # the part comes last and makes them count
            files.adopt(files.join(adoption.source, name), files.join(plan.folder, name))

    with ThreadPoolExecutor(files.THREADS) as pool:
        list(pool.map(one, plan.adopted.values()))
