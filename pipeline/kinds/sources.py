"""The stage whose unit of work is a source, which gives one part or more."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from tagmill.pipeline import key_index, source_notes
from tagmill.pipeline.accounts import known_parts
from tagmill.pipeline.fields_found import check_fields
from tagmill.pipeline.job import Job
from tagmill.pipeline.kinds.base import Kind, move_parts_away, require
from tagmill.pipeline.places import Place
from tagmill.pipeline.plan import StagePlan, Upstream
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder, named_parts
from tagmill.pipeline.source_notes import SourceNotes
from tagmill.pipeline.sources import Sources
from tagmill.pipeline.takedown import NOTE, Remembered, Takedown
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.transforms.ingest import Ingest, source_of, source_record_uri
from tagmill.transforms.source_worker import SourceWorker


@dataclass(frozen=True)
class _State:
    """The sources as they were found, what the run remembers of what was excluded, and the record before."""

    sources: Sources
    memory: Remembered
    before: StageRecord | None


class SourceFiles(Kind[Ingest]):
    """Ingests sources. The names of the parts are known only when all sources are read."""

    unit = "sources"

    def plan(
        self, stage: Ingest, generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[Ingest]:
        """Compare the sources as they are now with those that were read."""
        plan = upstream.begin_plan(stage, generation)
        run, current = upstream.run, upstream.run.current(stage.name)
        own = run.read_record(stage.name, generation)
        other = run.read_record(stage.name, current) if current and current != generation else None
        # Another config must not hide that a source is missing.
        record = own or other
        listed = files.list_names(plan.folder)
        here = known_parts(run, stage.name, generation, listed=listed)
        again = upstream.to_retry(stage.name, here)
        notes = SourceNotes(plan.folder, own)
        sources = Sources(upstream.inputs, stage, notes, set(here), again)
        if record:
            sources.follow(record.more["sources"], run.generation(stage.name, record.generation))
        offers = _take_over(
            sources, stage, Place(run, stage.name, other.generation) if other else None, upstream
        )
        plan.tasks, plan.reasons = sources.todo(
            accept_changes=upstream.accept_changes, check=upstream.check_sources
        )
        plan.expected = sources.expected_parts()
        if plan.tasks and plan.expected is not None:
            read = {task.name for task in plan.tasks}
            plan.touched = {name for name in plan.expected if source_of(name) in read}
        lent = _adopt(sources, plan, here, offers)
        plan.strays = sources.strays(named_parts(listed))
        plan.more = {"sources": sources.order}
        known = [own, *(offer.place.record for offer in offers)]
        memory = Remembered.read(*(one.more.get(NOTE, {}) for one in known if one))
        plan.state = _State(sources, memory, record)
        # What an interruption left is looked through once more for what is excluded.
        is_looked_through = own is not None and own.parts.keys() == here.keys()
        if stage.exclusion and not is_looked_through:
            plan.unfinished = "take out what is excluded"
        elif sources.adopted(plan.tasks) and not plan.adopted:
            plan.unfinished = "note the sources that are taken over"
        elif plan.adopted and stage.exclusion:
            plan.unfinished = "take out what is excluded of them"
        if plan.is_known:
            plan.more |= {NOTE: own.more[NOTE]} if own and NOTE in own.more else {}
            _observe(plan, upstream, here | lent)
        return plan

    def begin(self, plan: StagePlan[Ingest]) -> None:
        """Note the new stamps of sources whose bytes are the old ones."""
        plan.state.sources.note_touched()

    def make_way(self, plan: StagePlan[Ingest], run: RunFolder) -> None:
        """Move the stale parts of the sources that are read again away."""
        sources: Sources = plan.state.sources
        stale = sources.stale_parts(plan.tasks)
        sources.drop_records(plan.tasks)
        record = run.read_record(plan.stage.name, plan.generation)
        again = {*(task.name for task in plan.tasks), *sources.removed}
        listed = record.parts if record else ()
        move_parts_away(plan, run, [name for name in listed if source_of(name) in again], stale)

    def jobs(self, plan: StagePlan[Ingest]) -> Iterator[Job]:
        """Give one job."""
        if plan.tasks:
            yield Job.of_worker(plan.tasks, SourceWorker(plan.stage, plan.folder))

    def total(self, plan: StagePlan[Ingest]) -> int:
        """Count the sources."""
        return len(plan.more["sources"])

    def count_done(self, plan: StagePlan[Ingest]) -> int:
        """Count the sources that are read whole."""
        there = set(files.list_names(files.join(plan.folder, "sources"), ".json"))
        return self.total(plan) - sum(f"{task.name}.json" not in there for task in plan.tasks)

    def finish(self, plan: StagePlan[Ingest], upstream: Upstream) -> dict[str, PartRecord]:
        """Check that all sources are read, take out what is excluded, and see which parts there are."""
        uris = {task.path: source_record_uri(plan.folder, task.name) for task in plan.tasks}
        require(plan, [path for path, uri in uris.items() if not files.exists(uri)])
        state: _State = plan.state
        state.sources.note_adopted(plan.tasks)
        if plan.stage.exclusion:
            takedown = Takedown(plan.stage, plan.folder, state.memory)

            def forget(names: set[str]) -> None:
                upstream.run.forget_parts(plan.stage.name, plan.generation, names)

            plan.more |= takedown.run(dict(state.sources.part_names()), forget)
        _observe(plan, upstream, known_parts(upstream.run, plan.stage.name, plan.generation))
        return plan.done

    def review(self, plan: StagePlan[Ingest], record: StageRecord, upstream: Upstream) -> None:
        """Check that the fields which the inputs name were found in them."""
        check_fields(upstream.inputs, record, warn=not plan.is_whole)

    def files(self, plan: StagePlan[Ingest]) -> dict[str, str]:
        """Give the digests of what was noted of each source."""
        digests = plan.state.sources.digests
        return {f"sources/{name}.json": digests[name] for name in plan.more["sources"]}

    def tables(self, plan: StagePlan[Ingest], record: StageRecord) -> dict[str, Callable[[], bytes]]:
        """Give the notes of the sources as one table, and which parts hold a key."""
        state: _State = plan.state
        sources = state.sources
        return {
            source_notes.TABLE: lambda: sources.notes.table(sources.order),
            key_index.TABLE: lambda: key_index.make(plan.folder, record.parts, state.before),
        }


@dataclass(frozen=True)
class _Offer:
    """What another place has of ingest.

    Attributes:
        place: The place.
        parts: The parts that are there.
        again: The sources that something was taken out of which may be in the dataset now.
        inputs: The inputs of the place's run as they were last, by name.
    """

    place: Place
    parts: dict[str, PartRecord]
    again: set[str]
    inputs: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, stage: Ingest, place: Place) -> Self:
        """Look at a place."""
        found, record = place.parts(), place.record
        again = {source_of(name) for name, part in found.items() if part.notes.get(NOTE)}
        if record and set(record.more.get(NOTE, {}).get("entries", ())) <= stage.exclusion.hashes():
            again = set()
        return cls(place, found, again, _inputs_of(place.run))


def _inputs_of(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Read the inputs of a run, by name; none of one whose config cannot be read."""
    try:
        return {one["name"]: one for one in (run.saved_config() or {})["inputs"]}
    except (ConfigError, DamageError, LookupError, TypeError):
        return {}


def _take_over(sources: Sources, stage: Ingest, before: Place | None, upstream: Upstream) -> list[_Offer]:
    """Look for sources that the generation `before`, or for the rest another run, read in the same way."""
    offers = [_Offer.of(stage, before)] if before else []
    for offer in offers:
        sources.adopt(SourceNotes(offer.place.folder, offer.place.record), offer.parts, offer.again)
    if sources.lacks():
        lent = [_Offer.of(stage, place) for place in upstream.places.lent(stage.name)]
        for offer in lent:
            lent_notes = SourceNotes(offer.place.folder, offer.place.record)
            sources.adopt(lent_notes, offer.parts, offer.again, offer.inputs)
        offers += lent
    return offers


def _adopt(
    sources: Sources, plan: StagePlan[Ingest], here: Collection[str], offers: Iterable[_Offer]
) -> dict[str, PartRecord]:
    """Note the parts of sources that are taken over, and single parts of others that other runs have; gives
    their records.
    """
    found: dict[str, PartRecord] = {}
    whole = {name: sources.adopted_from(name) for name in sources.adopted_parts(plan.tasks)}
    for offer in offers:
        names = [name for name, folder in whole.items() if folder == offer.place.folder]
        if offer.place.lender:
            names += [
                name
                for name in sources.usable_parts(plan.tasks, offer.parts)
                if source_of(name) not in offer.again and sources.is_same_place(source_of(name), offer.inputs)
            ]
        for name in names:
            if name not in here and name not in found:
                found[name] = offer.parts[name]
                plan.adopted[name] = offer.place.adoption(found[name])
    return found


def _observe(plan: StagePlan[Ingest], upstream: Upstream, found: Mapping[str, PartRecord]) -> None:
    """Note which parts there are now, in order."""
    upstream.sources = dict(plan.state.sources.part_names())
    plan.names = list(upstream.sources)
    plan.done = {name: found[name] for name in plan.names}
