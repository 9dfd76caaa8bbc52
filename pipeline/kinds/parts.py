"""Stages that make one part from the same-named parts of their inputs: most stages."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tagmill.pipeline.accounts import account
from tagmill.pipeline.job import Job
from tagmill.pipeline.kinds.base import Kind, check_made, find_strays, made_footers, move_parts_away, served
from tagmill.pipeline.plan import StagePlan, Upstream, work
from tagmill.pipeline.records import PartRecord
from tagmill.pipeline.run_folder import RunFolder, committed_parts
from tagmill.pipeline.stock import Stock, Wanted
from tagmill.tag_system.core import files
from tagmill.transforms import bitmaps, parts
from tagmill.transforms.rewrite import RewriteWorker
from tagmill.transforms.stage import PartStage, part_fingerprint
from tagmill.transforms.worker import PartWorker

CANARIES = 2
"""Parts of a model stage that are made first: a bad model or threshold shows before it costs GPU days."""


class Parts(Kind[PartStage[Any]]):
    """Stages whose parts are planned and used again one by one."""

    def plan(
        self, stage: PartStage[Any], generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[PartStage[Any]]:
        """Look for every part here and in other generations."""
        plan = upstream.begin_plan(stage, generation)
        if upstream.is_open(inputs):
            return upstream.wait(plan, inputs)
        plan.names = upstream.names()
        listed = find_strays(plan)
        came, ingested = upstream.came(), upstream.ingested()
        tables = {other: TableRows(upstream, other) for other in inputs if other in stage.tables}
        stock = Stock(upstream, stage.name, generation, plan.names, listed)
        for name in plan.names:
            common: dict[str, Any] = {other: rows.digest(name) for other, rows in tables.items()}
            if stage.follows_rows:
                common["rows"] = bitmaps.dump(came[name]).hex()
            now = upstream.digests(stage, inputs, name) | common
            was = upstream.digests(stage, inputs, name, before=True) | common
            whole, base = _fingerprints(stage, now)
            before = (whole, base) if was == now else _fingerprints(stage, was)
            wanted = Wanted(name, whole, came[name], base, *before, ingested[name])
            if not stock.serve(plan, wanted, partial(upstream.by_row, stage, inputs, name)):
                origin = plan.origins.get(name, "")
                plan.tasks.append(upstream.task(stage, inputs, name, whole, base, origin))
        for source, found in _by_folder(plan).items():
            plan.done |= account(source, upstream.ingested_uri, found, came, upstream.removed)
        return plan

    def make_way(self, plan: StagePlan[PartStage[Any]], run: RunFolder) -> None:
        """Move the parts away that are made again, or make way for adopted ones."""
        again = [task.name for task in plan.tasks]
        _keep_for_rewriting(plan)
        there = committed_parts(plan.folder)
        move_parts_away(plan, run, again, [name for name in [*again, *plan.adopted] if name in there])

    def jobs(self, plan: StagePlan[PartStage[Any]]) -> Iterator[Job]:
        """Give a job for the parts to be rewritten, and one for those to be made, or for a model on many
        first the canaries.
        """
        rewritten = [task for task in plan.tasks if task.origin]
        if rewritten:
            yield Job.of_worker(rewritten, RewriteWorker(plan.stage, plan.folder))
        tasks, worker = [task for task in plan.tasks if not task.origin], PartWorker(plan.stage, plan.folder)
        if plan.stage.uses_model and len(tasks) > 10 * CANARIES:
            yield Job.of_worker(tasks[:CANARIES], worker, is_trial=True)
        if tasks:
            yield Job.of_worker(tasks, worker)

    def finish(self, plan: StagePlan[PartStage[Any]], upstream: Upstream) -> dict[str, PartRecord]:
        """Check the new parts and account for their rows."""
        came = upstream.came()
        footers = made_footers(plan)
        check_made(plan, footers, came)
        made = {name: PartRecord.of(footer) for name, footer in footers.items()}
        made = account(plan.folder, upstream.ingested_uri, made, came, upstream.removed) | served(plan)
        return {name: made[name] for name in plan.names}


def _fingerprints(stage: PartStage[Any], digests: Mapping[str, Any]) -> tuple[str, str]:
    """Give the fingerprint of a part, and the one without the slices that it depends on."""
    others = {name: digest for name, digest in digests.items() if name not in stage.slices}
    whole = part_fingerprint(stage, digests)
    return whole, whole if others == digests else part_fingerprint(stage, others)


def _keep_for_rewriting(plan: StagePlan[PartStage[Any]]) -> None:
    """Move the parts of this generation aside that are rewritten."""
    for name, origin in plan.origins.items():
        if origin == work(plan):
            for uri in (parts.dead_uri, parts.part_uri):
                if files.exists(uri(plan.folder, name)):
                    files.move(uri(plan.folder, name), uri(origin, name))


def _by_folder(plan: StagePlan[PartStage[Any]]) -> dict[str, dict[str, PartRecord]]:
    """Group the parts that serve by the folder in which they lie now."""
    found: dict[str, dict[str, PartRecord]] = {}
    for name, part in plan.done.items():
        found.setdefault(plan.folder_of(name), {})[name] = part
    return found


class TableRows:
    """Digests of the rows of a stage's table that a part depends on: those of its own tags."""

    def __init__(self, upstream: Upstream, table: str) -> None:
        record = upstream.records[table]
        self._rows: dict[str, str] = record.more["rows"]
        self._inputs = [upstream.records[other].parts for other in record.inputs]

    def digest(self, name: str) -> list[list[str | None]]:
        """List tag and digest of every row that matters for a part; none if no region of it lives."""
        tags = sorted({tag for parts in self._inputs for tag in parts[name].tags})
        return [[tag, self._rows.get(tag)] for tag in tags]
