"""The stage whose unit of work is a source, which gives one part or more."""

from collections.abc import Iterator

from tagmill.pipeline.accounts import known_parts
from tagmill.pipeline.job import Job
from tagmill.pipeline.kinds.base import Kind, move_parts_away, require
from tagmill.pipeline.plan import StagePlan, Upstream
from tagmill.pipeline.records import PartRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.sources import Sources
from tagmill.tag_system.core import files
from tagmill.transforms.ingest import Ingest, SourceWorker, source_of, source_record_uri


class SourceFiles(Kind[Ingest]):
    """Ingests sources. The names of the parts are known only when all sources are read."""

    unit = "sources"

    def plan(
        self, stage: Ingest, generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[Ingest]:
        """Compare the sources as they are now with those that were read."""
        plan = upstream.begin_plan(stage, generation)
        record = upstream.run.read_record(stage.name, generation)
        if record is None and (current := upstream.run.current(stage.name)):
            # Another config must not hide that a source is missing.
            record = upstream.run.read_record(stage.name, current)
        whole = known_parts(upstream.run, stage.name, generation).keys()
        sources = Sources(upstream.inputs, stage, plan.folder, set(whole))
        if record:
            sources.follow(record.more["sources"], upstream.run.generation(stage.name, record.generation))
        plan.tasks, plan.reasons = sources.todo(
            accept_changes=upstream.accept_changes, check=upstream.check_sources
        )
        plan.strays = sources.strays()
        plan.more = {"sources": sources.order}
        plan.state = sources
        if not plan.tasks:
            _observe(plan, upstream)
        return plan

    def begin(self, plan: StagePlan[Ingest]) -> None:
        """Note the new stamps of sources whose bytes are the old ones."""
        plan.state.note_touched()

    def make_way(self, plan: StagePlan[Ingest], run: RunFolder) -> None:
        """Move the stale parts of the sources that are read again away."""
        sources: Sources = plan.state
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
        """Check that all sources are read, and see which parts they gave."""
        uris = {task.path: source_record_uri(plan.folder, task.name) for task in plan.tasks}
        require(plan, [path for path, uri in uris.items() if not files.exists(uri)])
        _observe(plan, upstream)
        return plan.done

    def files(self, plan: StagePlan[Ingest]) -> dict[str, str]:
        """Give the digests of what was noted of each source."""
        digests = plan.state.digests
        return {f"sources/{name}.json": digests[name] for name in plan.more["sources"]}


def _observe(plan: StagePlan[Ingest], upstream: Upstream) -> None:
    """Read which parts there are now, in order."""
    upstream.sources = dict(plan.state.part_names())
    plan.names = list(upstream.sources)
    found = known_parts(upstream.run, plan.stage.name, plan.generation, plan.names)
    plan.done = {name: found[name] for name in plan.names}
