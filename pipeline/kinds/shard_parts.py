"""Stages that make one part from a shard."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tagmill.pipeline.job import Job
from tagmill.pipeline.kinds.base import check_made, find_strays, made_footers, served
from tagmill.pipeline.kinds.parts import Parts
from tagmill.pipeline.plan import StagePlan, Upstream
from tagmill.pipeline.records import PartRecord
from tagmill.pipeline.run_folder import committed_parts
from tagmill.pipeline.stock import Stock, Wanted
from tagmill.transforms.stage import PartStage, PartTask, part_fingerprint
from tagmill.transforms.worker import ReuseWorker


class ShardParts(Parts):
    """Stages with one part for each shard, of the same name; a part's rows are the shard's examples."""

    unit = "shards"

    def plan(
        self, stage: PartStage[Any], generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[PartStage[Any]]:
        """Look for the parts that are not there, or whose shard is another one now."""
        plan = upstream.begin_plan(stage, generation)
        if upstream.is_open(inputs):
            plan.unknown = True
            return plan
        (source,) = inputs
        shards, written = upstream.records[source].parts, upstream.plans[source]
        plan.names = list(shards)
        listed = find_strays(plan)
        stock = Stock(upstream, stage.name, generation, plan.names, listed)
        for name, shard in shards.items():
            fingerprint = part_fingerprint(stage, {source: shard.digest})
            if not stock.serve(plan, Wanted(name, fingerprint, shard.came), dict):
                where = {source: written.stage.output_uri(written.folder, name)}
                origin = stock.find_relative(name, stage)
                plan.tasks.append(PartTask(name, fingerprint, where, written.folder, origin=origin))
        return plan

    def jobs(self, plan: StagePlan[PartStage[Any]]) -> Iterator[Job]:
        """Give a job for parts that may be made of earlier ones, and then those of what it left."""
        related = [task for task in plan.tasks if task.origin]
        if related:
            yield Job.of_worker(related, ReuseWorker(plan.stage, plan.folder))
        there = committed_parts(plan.folder)
        left = [replace(task, origin="") for task in plan.tasks if task.name not in there]
        yield from super().jobs(replace(plan, tasks=left))

    def finish(self, plan: StagePlan[PartStage[Any]], upstream: Upstream) -> dict[str, PartRecord]:
        """Check the new parts."""
        footers = made_footers(plan)
        check_made(plan, footers, {})
        made = {name: PartRecord.of(footer) for name, footer in footers.items()} | served(plan)
        return {name: made[name] for name in plan.names}
