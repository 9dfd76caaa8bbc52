"""The driver: plans each stage, has an engine make what is missing, checks it and records it."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import yaml

from tagmill.pipeline import dataset
from tagmill.pipeline.accounts import account, known_parts, read_footers
from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.job import Engine, Job
from tagmill.pipeline.ledger import claim_token, give_back_token
from tagmill.pipeline.plan import (
    CLUSTERS,
    StagePlan,
    Upstream,
    adopt,
    generation_of,
    plan_global,
    plan_parts,
    stale_parts,
)
from tagmill.pipeline.progress import Progress
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import FORMAT, RunFolder, committed_parts, lone_leftovers, supersede_part
from tagmill.pipeline.sources import Sources
from tagmill.pipeline.stages import STAGE_NAMES, build_stages, inputs_of
from tagmill.tag_system.core import errors, files
from tagmill.tag_system.core.errors import ConfigError, DamageError, TooManyDeadError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import cluster, parquet, parts
from tagmill.transforms.features import Features
from tagmill.transforms.ingest import Ingest, IngestSources, source_of, source_record_uri
from tagmill.transforms.parts import Footer, Unit
from tagmill.transforms.shards import Shards, WriteShards, index_uri
from tagmill.transforms.stage import GlobalStage, MakeParts, PartStage, Stage, libraries

CANARIES = 2
"""Parts of a model stage that are made first: a bad model or threshold shows before it costs GPU days."""


class Holder(Protocol):
    """Who drives a run: see `lease.Lease`."""

    token: int

    def check(self) -> None:
        """Raise ConfigError if this driver must not go on."""


class Driver:
    """Drives one run of the engine."""

    def __init__(self, config: RunConfig, *, accept_changes: bool = False) -> None:
        self.config = config
        self.vocabulary = Vocabulary.load(config.vocabulary)
        self.stages = build_stages(config, self.vocabulary)
        self.run_folder = RunFolder(config.run)
        self.upstream = Upstream(self.run_folder)
        self._accept_changes = accept_changes
        self._sources: Sources | None = None
        self._check_part_size()
        for stage in self.stages:
            # A model that cannot be had shows before any stage starts, not when it is its turn.
            _ = stage.meaning

    def _check_part_size(self) -> None:
        saved = self.run_folder.saved_config()
        if saved is not None and saved["part_size"] != self.config.part_size:
            raise ConfigError(
                f"{self.config.run} was begun with part_size {saved['part_size']}, which is fixed for a run; "
                f"set it back, or choose another run folder (got {self.config.part_size})"
            )

    def plan(self) -> Iterator[StagePlan]:
        """Plan the stages in order; each plan sees the records of the stages before it.

        Whoever iterates may finish a plan's work and record it before going on.
        """
        for stage in self.stages:
            inputs = inputs_of(stage, self.stages)
            # What follows the rows that live depends on every stage that can take some out.
            named = self.upstream.plans if stage.follows_rows else inputs
            generations = {name: self.upstream.plans[name].generation for name in named}
            generation = generation_of(stage, generations)
            plan = self._plan(stage, generation, inputs)
            self.upstream.plans[stage.name] = plan
            if plan.is_known:
                self._record(plan, {name: plan.done[name] for name in plan.names if name in plan.done})
            yield plan

    def _plan(self, stage: Stage[Any], generation: str, inputs: list[str]) -> StagePlan:
        if isinstance(stage, Ingest):
            return self._plan_ingest(stage, generation)
        if isinstance(stage, Shards):
            return dataset.plan_shards(stage, generation, inputs, self.upstream)
        if isinstance(stage, Features):
            return dataset.plan_features(stage, generation, self.upstream)
        if isinstance(stage, GlobalStage):
            return plan_global(stage, generation, inputs, self.upstream)
        if isinstance(stage, PartStage):
            return plan_parts(stage, generation, inputs, self.upstream)
        raise TypeError(f"no way to plan {stage.name}")

    def _plan_ingest(self, stage: Ingest, generation: str) -> StagePlan:
        folder = self.run_folder.generation(stage.name, generation)
        record = self.run_folder.read_record(stage.name, generation)
        before = record.more["sources"] if record else []
        whole = known_parts(self.run_folder, stage.name, generation).keys()
        self._sources = Sources(self.config, stage, folder, before, set(whole))
        tasks, reasons = self._sources.todo(accept_changes=self._accept_changes)
        plan = StagePlan(stage, generation, folder, [], {}, tasks, reasons)
        plan.more = {"sources": self._sources.order}
        if not tasks:
            self._observe_ingest(plan)
        return plan

    def _observe_ingest(self, plan: StagePlan) -> None:
        """Read which parts ingest has now, in order."""
        if self._sources is None:
            raise RuntimeError("ingest is planned before it is observed")
        self.upstream.sources = dict(self._sources.part_names())
        plan.names = list(self.upstream.sources)
        found = known_parts(self.run_folder, plan.stage.name, plan.generation, plan.names)
        plan.done = {name: found[name] for name in plan.names}

    def run(self, engine: Engine, progress: Progress, holder: Holder | None = None) -> None:
        """Make everything that is missing, stage by stage; `holder` holds the run's lease."""
        if holder:
            self.run_folder.token = holder.token
            self._run(engine, progress, holder.check)
            return
        self.run_folder.token = claim_token(self.run_folder.root)
        try:
            self._run(engine, progress, lambda: None)
        finally:
            give_back_token(self.run_folder.root, self.run_folder.token)

    def _run(self, engine: Engine, progress: Progress, check: Callable[[], None]) -> None:
        self._save_config()
        for plan in self.plan():
            check()
            if isinstance(plan.stage, Ingest) and self._sources is not None:
                self._sources.note_touched()
            done, total = self.extent(plan)
            progress.start(plan.stage.name, done, total)
            if not plan.is_whole:
                self._make(plan, engine, progress)
            record = self.upstream.records[plan.stage.name]
            self._check_fraction(record, "of all")
            self._save_record(record)
            progress.finish(plan.stage.name, record.count("example", "out"), _dead(record))
        for name in set(STAGE_NAMES) - {stage.name for stage in self.stages}:
            self.run_folder.switch_off(name)

    def extent(self, plan: StagePlan) -> tuple[int, int]:
        """Count what is in place and what there will be, in the stage's own units."""
        total = len(plan.more["sources"]) if isinstance(plan.stage, Ingest) else len(plan.names)
        return total - len(plan.tasks), total

    def _save_config(self) -> None:
        saved = {"format": FORMAT, "config": self.config.model_dump(mode="json"), "libraries": libraries()}
        text = yaml.safe_dump(saved, sort_keys=False, allow_unicode=True)
        files.replace_bytes(self.run_folder.path("run.yaml"), text.encode())

    def _make(self, plan: StagePlan, engine: Engine, progress: Progress) -> None:
        start = time.monotonic()
        self.run_folder.begin(plan.stage.name, plan.generation)
        self._make_way(plan)
        adopt(plan)
        for job in self.jobs(plan):
            with progress.watch(plan.stage.name, lambda: self._count_done(plan)):
                try:
                    engine.execute(job)
                except RuntimeError as error:
                    own = _own_error(error)
                    if own is None:
                        raise
                    raise own from error
            if len(job.tasks) < len(plan.tasks):
                self._check_canaries(plan, job)
        made = self._finish(plan)
        plan.more["wall"] = round(time.monotonic() - start, 2)
        self._record(plan, made)

    def _make_way(self, plan: StagePlan) -> None:
        """Move what must be made again out of the way, before any worker starts: workers only create."""
        stale: list[str] = []
        again = {task.name for task in plan.tasks}  # parts, or the sources of parts
        if isinstance(plan.stage, Shards):
            dataset.make_way_for_shards(plan)
        elif isinstance(plan.stage, GlobalStage):
            # Its record speaks for all of its parts at once, and would for a half-published mixture.
            self.run_folder.forget_all(plan.stage.name, plan.generation)
            files.remove(self._work(plan))
            stale = [name for name in plan.adopted if name in committed_parts(plan.folder)]
            if CLUSTERS in plan.adopted:
                files.remove(files.join(plan.folder, CLUSTERS))
        elif isinstance(plan.stage, Ingest) and self._sources:
            stale = self._sources.stale_parts(plan.tasks)
            self._sources.drop_records(plan.tasks)
        else:
            stale = stale_parts(plan)
        # First forgotten, then moved: an interruption in between leaves nothing that is believed wrongly.
        # A part that somebody removed is forgotten too: what comes in its place may say something else.
        if not isinstance(plan.stage, Shards):
            again |= plan.adopted.keys()
            self.run_folder.forget_parts(
                plan.stage.name, plan.generation, lambda name: name in again or source_of(name) in again
            )
        # Files without their part were made by what may have changed since; workers would leave them.
        for name in [*stale, *lone_leftovers(plan.folder)]:
            supersede_part(plan.folder, name)

    def _work(self, plan: StagePlan) -> str:
        return files.join(plan.folder, "work")

    def jobs(self, plan: StagePlan) -> Iterator[Job]:
        """Give the Beam jobs of a plan: one, or for a model on many parts first the canaries."""
        stage = plan.stage
        if not plan.tasks:
            return
        if isinstance(stage, Ingest):
            yield Job(plan, plan.tasks, partial(IngestSources, stage, plan.folder))
        elif isinstance(stage, Shards):
            yield Job(plan, plan.tasks, partial(WriteShards, stage, plan.folder))
        elif isinstance(stage, GlobalStage):
            order = {name: place for place, name in enumerate(plan.names)}
            yield Job(plan, plan.tasks, partial(stage.transform, self._work(plan), order))
        elif isinstance(stage, PartStage):
            if stage.uses_model and len(plan.tasks) > 10 * CANARIES:
                yield Job(plan, plan.tasks[:CANARIES], partial(MakeParts, stage, plan.folder))
            yield Job(plan, plan.tasks, partial(MakeParts, stage, plan.folder))

    def _count_done(self, plan: StagePlan) -> int:
        """Count what lies in the folder, which is the truth whatever the engine reports."""
        if isinstance(plan.stage, Ingest):
            there = set(files.list_names(files.join(plan.folder, "sources"), ".json"))
            return len(plan.more["sources"]) - sum(f"{task.name}.json" not in there for task in plan.tasks)
        if isinstance(plan.stage, Shards):
            return len(files.list_names(plan.folder, ".index.parquet"))
        folder = self._work(plan) if isinstance(plan.stage, GlobalStage) else plan.folder
        return len(committed_parts(folder) & set(plan.names))

    def _finish(self, plan: StagePlan) -> dict[str, PartRecord]:
        """Check that a stage is whole and give its records."""
        if isinstance(plan.stage, Shards):
            return self._finish_shards(plan)
        if not plan.tasks:  # all of it was adopted
            return {name: plan.done[name] for name in plan.names if name in plan.done}
        if isinstance(plan.stage, Ingest):
            missing = [
                task.path
                for task in plan.tasks
                if not files.exists(source_record_uri(plan.folder, task.name))
            ]
            self._require(plan, missing)
            self._observe_ingest(plan)
            return plan.done
        if isinstance(plan.stage, cluster.Cluster):
            return self._publish_clusters(plan)
        if isinstance(plan.stage, GlobalStage):
            self._publish_parts(plan)
        expected = {task.name: task.fingerprint for task in plan.tasks}
        there = committed_parts(plan.folder)
        self._require(plan, [name for name in expected if name not in there])
        footers = read_footers(plan.folder, expected)
        came = {} if isinstance(plan.stage, Features) else self.upstream.came()
        if not isinstance(plan.stage, GlobalStage):
            _check_made(footers, expected, came)
        made = {name: PartRecord.of(footer) for name, footer in footers.items()}
        if not isinstance(plan.stage, Features):
            ingest = self.upstream.plans["ingest"].folder
            made = account(plan.folder, ingest, made, came, self.upstream.gone)
        made |= plan.done
        return {name: made[name] for name in plan.names}

    def _require(self, plan: StagePlan, missing: list[str]) -> None:
        if missing:
            names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            raise RuntimeError(
                f"{plan.stage.name}: the job ended without {len(missing)} of its outputs: {names}"
            )

    def _publish_parts(self, plan: StagePlan) -> None:
        """Move the parts of a global stage into place, where they differ from those that are there."""
        work = self._work(plan)
        self._require(plan, sorted(set(plan.names) - committed_parts(work)))
        there = committed_parts(plan.folder)
        new = {name: footer.header for name, footer in read_footers(work, plan.names).items()}
        old = read_footers(plan.folder, [name for name in plan.names if name in there])
        for name in plan.names:
            if name in old:
                # Rows are no part of a digest: with nothing dropped, more examples are the same table.
                header = old[name].header
                if (header.digest, header.rows) == (new[name].digest, new[name].rows):
                    continue
                supersede_part(plan.folder, name)
            files.move(parts.part_uri(work, name), parts.part_uri(plan.folder, name))
        files.remove(work)

    def _publish_clusters(self, plan: StagePlan) -> dict[str, PartRecord]:
        """Merge the buckets into the one table, and note a digest for every tag's row."""
        work = self._work(plan)
        buckets = [name for name in files.list_names(work, ".parquet") if name.startswith("clusters-")]
        table = cluster.merge(parquet.read_table(files.join(work, name)) for name in buckets)
        uri = files.join(plan.folder, CLUSTERS)
        files.replace_bytes(uri, parquet.table_bytes(table, {"stage": plan.stage.name}))
        plan.more["rows"] = cluster.tag_digests(table)
        files.remove(work)
        return {}

    def _finish_shards(self, plan: StagePlan) -> dict[str, PartRecord]:
        missing = [task.name for task in plan.tasks if not files.exists(index_uri(plan.folder, task.name))]
        self._require(plan, missing)
        stages = [other.stage for other in self.upstream.plans.values()]
        return dataset.finish_dataset(plan, self.vocabulary, stages)

    def _record(self, plan: StagePlan, made: dict[str, PartRecord]) -> None:
        stage = plan.stage
        before = self.run_folder.read_record(stage.name, plan.generation)
        if plan.is_whole and before and "wall" in before.more:
            plan.more["wall"] = before.more["wall"]
        record = StageRecord(
            stage.name,
            stage.version,
            plan.generation,
            stage.meaning,
            stage.settings,
            {name: self.upstream.plans[name].generation for name in inputs_of(stage, self.stages)},
            made,
            plan.more,
            libraries(),
        )
        self._check_chain(record)
        self.upstream.close(record)

    def _check_chain(self, record: StageRecord) -> None:
        """Check that what came into a stage is what the one before it let out. Raises DamageError."""
        known = self.upstream.records.values()
        before = [other for other in known if other.parts and other.stage != record.stage]
        if record.parts and before:
            left, came = before[-1].count("example", "out"), record.count("example", "in")
            if left != came:
                raise DamageError(
                    f"{record.stage}: {came} examples came in, but {left} left {before[-1].stage}; remove "
                    f"the folders records of both in {self.run_folder.root} and run again"
                )

    def _save_record(self, record: StageRecord) -> None:
        """Write a stage's record; the next stage's tasks name the table beside it."""
        self.run_folder.write_record(record)
        self.upstream.close(record)

    def _check_canaries(self, plan: StagePlan, job: Job) -> None:
        footers = read_footers(plan.folder, [task.name for task in job.tasks])
        made = {name: PartRecord.of(footer) for name, footer in footers.items()}
        record = StageRecord(plan.stage.name, plan.stage.version, plan.generation, {}, parts=made)
        self._check_fraction(record, "of the first parts")

    def _check_fraction(self, record: StageRecord, of_what: str) -> None:
        units: tuple[Unit, ...] = ("example", "caption")
        for unit in units:
            dead, total = record.count(unit, "dead"), record.count(unit, "in")
            if dead > self.config.max_dead_fraction * total:
                folder = files.join(self.run_folder.generation(record.stage, record.generation), "dead")
                raise TooManyDeadError(
                    f"{record.stage}: {dead} {of_what} {total} {unit}s are dead letters, more than "
                    f"max_dead_fraction {self.config.max_dead_fraction} allows; see {folder}"
                )


def _check_made(footers: Mapping[str, Footer], expected: Mapping[str, str], came: Mapping[str, int]) -> None:
    """Check that parts are what was asked for: a worker of an earlier attempt may have been the first.

    Raises DamageError.
    """
    for name, footer in footers.items():
        header = footer.header
        if header.fingerprint != expected[name]:
            raise DamageError(f"{header.stage}/{name} was made by another config; run again")
        if came.get(name, 0) & ~header.rows:
            raise DamageError(f"{header.stage}/{name} was made for fewer rows; run again")


def _dead(record: StageRecord) -> int:
    return record.count("example", "dead") + record.count("caption", "dead")


def _own_error(error: RuntimeError) -> Exception | None:
    """Find the project's own error in what a worker reported as text."""
    match = re.search(r"tagmill\.tag_system\.errors\.(\w+): (.*)", str(error))
    kind = getattr(errors, match[1], None) if match else None
    if match is None or kind not in (ConfigError, DamageError, errors.InputChangedError):
        return None
    own: Exception = kind(match[2].removesuffix("\\n"))
    return own
