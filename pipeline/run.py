"""The driver of a run: it plans each stage, lets an engine make what is missing, and checks and records
it."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from tagmill.pipeline.accounts import read_footers
from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.dead_letters import check_fraction
from tagmill.pipeline.job import Engine, Job
from tagmill.pipeline.kinds import kind_of
from tagmill.pipeline.ledger import claim_token, give_back_token
from tagmill.pipeline.other_runs import open_lenders
from tagmill.pipeline.places import adopt
from tagmill.pipeline.plan import StagePlan, Upstream, generation_of
from tagmill.pipeline.progress import Extent, Progress
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import FORMAT, RunFolder
from tagmill.pipeline.stages import build_stages, inputs_of
from tagmill.pipeline.summary import Summing
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import failures
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.stage import libraries


class Holder(Protocol):
    """Holds the right to drive a run: see `lease.Lease`."""

    token: int

    def check(self) -> None:
        """Raise ConfigError if this driver has lost the run."""


class Driver:
    """Runs the stages of a config in order.

    Args:
        config: The run's config.
        accept_changes: Ingest sources again that changed since they were ingested.
        check_sources: Read sources again that look unchanged.
        retry: A stage and a reason, whose dead letters are tried again; an empty reason is any.
        until: The last stage to be made; what comes after it is left as it is, and no model of it is needed.

    Raises:
        ConfigError: The vocabulary, a model, a stage or another run cannot be had, or `part_size` was
            changed.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        accept_changes: bool = False,
        check_sources: bool = False,
        retry: tuple[str, str] | None = None,
        until: str | None = None,
    ) -> None:
        self._is_cut_short = until is not None
        self.config = config
        self.vocabulary = Vocabulary.load(config.vocabulary)
        self.stages = build_stages(config, self.vocabulary, until)
        self.run_folder = RunFolder(config.run)
        lenders = open_lenders(config.reuse, self.run_folder, config.part_size)
        self.upstream = Upstream(
            self.run_folder, config.inputs, self.vocabulary, accept_changes, check_sources, retry, lenders
        )
        self._check_part_size()
        for stage in self.stages:
            # A model that cannot be found is an error now, not when its stage begins.
            _ = stage.spec
        named = {stage.name: stage for stage in self.stages}
        for stage in self.stages:
            inputs = [named[name] for name in inputs_of(stage, self.stages)]
            kind_of(stage).check(stage, inputs, self.run_folder)

    def _check_part_size(self) -> None:
        saved = self.run_folder.saved_config()
        if saved is not None and saved["part_size"] != self.config.part_size:
            raise ConfigError(
                f"{self.config.run} was begun with part_size {saved['part_size']}, which is fixed for a run; "
                f"set it back, or choose another run folder (got {self.config.part_size})"
            )

    @property
    def ingest(self) -> Ingest:
        """The stage that reads the sources."""
        (found,) = (stage for stage in self.stages if isinstance(stage, Ingest))
        return found

    def plan(self) -> Iterator[StagePlan[Any]]:
        """Plan the stages in order; each plan sees the records of the stages before it.

        Whoever iterates may finish a plan's work and record it before going on.
        """
        for stage in self.stages:
            inputs = inputs_of(stage, self.stages)
            # What follows the rows that live depends on every stage that can take some out.
            named = self.upstream.plans if stage.follows_rows else inputs
            generations = {name: self.upstream.plans[name].generation for name in named}
            generation = generation_of(stage, generations)
            plan = kind_of(stage).plan(stage, generation, inputs, self.upstream)
            self.upstream.plans[stage.name] = plan
            if plan.is_known:
                self._record(plan, {name: plan.done[name] for name in plan.names if name in plan.done})
            yield plan

    def run(self, engine: Engine, progress: Progress, holder: Holder | None = None) -> None:
        """Make everything that is missing, stage by stage.

        Args:
            engine: Runs the jobs.
            progress: Receives the progress.
            holder: Holds the run's lease; without one, the driver takes a token but no lease.

        Raises:
            TooManyDeadError: More of a stage's input died than `max_dead_fraction`.
            DamageError: A file of the run is damaged.
            ConfigError: The run's lease was lost.
        """
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
        self._save_config({})
        summing = Summing(self.run_folder)
        for plan in self.plan():
            check()
            kind = kind_of(plan.stage)
            kind.begin(plan)
            progress.start(plan.stage.name, self.extent(plan))
            if not plan.is_whole:
                self._make(plan, engine, progress)
            record = self.upstream.records[plan.stage.name]
            record.files = kind.files(plan)
            self.run_folder.write_record(record, kind.tables(plan, record))
            summing.add(record)
            # Once it is recorded: whoever is stopped wants to look at what died.
            check_fraction(self.run_folder, record, self.config.max_dead_fraction, "of all")
            kind.review(plan, record, self.upstream)
            self.upstream.close(record)  # once more: the next stage's tasks name the table beside it
            progress.finish(plan.stage.name, record.count("example", "out"), _dead(record))
        if not self._is_cut_short:
            self._switch_off_others()
            summing.close()
        check()
        self._save_config({name: plan.generation for name, plan in self.upstream.plans.items()})

    def _switch_off_others(self) -> None:
        for name in set(self.run_folder.stages()) - {stage.name for stage in self.stages}:
            # What a stage made that is off now may be of what is excluded.
            self.run_folder.switch_off(name, keep=not self.upstream.has_excluded)

    def extent(self, plan: StagePlan[Any]) -> Extent:
        """Count the finished units and all units of a stage."""
        kind = kind_of(plan.stage)
        total = kind.total(plan)
        return Extent(total - len(plan.tasks), total, kind.unit)

    def jobs(self, plan: StagePlan[Any]) -> Iterator[Job]:
        """Give the jobs that make what is missing in a plan."""
        return kind_of(plan.stage).jobs(plan)

    def _save_config(self, finished: Mapping[str, str]) -> None:
        saved = {
            "format": FORMAT,
            "stages": self.run_folder.merged_order([stage.name for stage in self.stages]),
            "config": self.config.model_dump(mode="json"),
            "libraries": libraries(),
            "finished": dict(finished),
        }
        self.run_folder.save_config(saved)

    def _make(self, plan: StagePlan[Any], engine: Engine, progress: Progress) -> None:
        start = time.monotonic()
        kind = kind_of(plan.stage)
        self.run_folder.begin(plan.stage.name, plan.generation)
        kind.make_way(plan, self.run_folder)
        adopt(plan.adopted.values(), plan.folder)
        for job in self.jobs(plan):
            with progress.watch(plan.stage.name, lambda: kind.count_done(plan)):
                _execute(engine, job)
            if job.is_trial:
                self._check_first_parts(plan, job)
        made = kind.finish(plan, self.upstream)
        plan.more["wall"] = round(time.monotonic() - start, 2)
        self._record(plan, made)

    def _record(self, plan: StagePlan[Any], made: dict[str, PartRecord]) -> None:
        stage = plan.stage
        before = self.run_folder.read_record(stage.name, plan.generation)
        if plan.is_whole and before and "wall" in before.more:
            plan.more["wall"] = before.more["wall"]
        record = StageRecord(
            stage=stage.name,
            kind=stage.kind,
            version=stage.version,
            generation=plan.generation,
            spec=stage.spec,
            settings=stage.settings,
            inputs={name: self.upstream.plans[name].generation for name in inputs_of(stage, self.stages)},
            parts=made,
            more=plan.more,
            libraries=libraries(),
        )
        self._check_chain(record)
        self.upstream.close(record)

    def _check_chain(self, record: StageRecord) -> None:
        """Check that a stage got as many examples as the one before let out. Raises DamageError."""
        known = self.upstream.records.values()
        before = [other for other in known if other.parts and other.stage != record.stage]
        if record.parts and before:
            left, came = before[-1].count("example", "out"), record.count("example", "in")
            if left != came:
                raise DamageError(
                    f"{record.stage}: {came} examples came in, but {before[-1].stage} let {left} out; remove "
                    f"the folders `records` of both in {self.run_folder.root} and run again"
                )

    def _check_first_parts(self, plan: StagePlan[Any], job: Job) -> None:
        footers = read_footers(plan.folder, [task.name for task in job.tasks])
        made = {name: PartRecord.of(footer) for name, footer in footers.items()}
        stage = plan.stage
        record = StageRecord(stage.name, stage.kind, stage.version, plan.generation, {}, parts=made)
        check_fraction(self.run_folder, record, self.config.max_dead_fraction, "of the first parts")


def _execute(engine: Engine, job: Job) -> None:
    """Run a job; raises the error that a worker noted, if there is one, rather than the engine's."""
    failures.forget(job.folder)
    try:
        engine.execute(job)
    except RuntimeError as error:
        noted = failures.find(job.folder) or failures.told(str(error.__cause__ or error), job.folder)
        if noted is None:
            raise
        raise noted from error
    failures.forget(job.folder)


def _dead(record: StageRecord) -> int:
    return record.count("example", "dead") + record.count("caption", "dead")
