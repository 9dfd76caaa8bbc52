"""Stages that make one table of all parts, of which later stages read the rows of their own tags."""

from collections.abc import Mapping, Sequence
from typing import Any

from tagmill.pipeline import checks
from tagmill.pipeline.kept_rows import check_kept, kept_rows
from tagmill.pipeline.kinds.base import served
from tagmill.pipeline.kinds.global_parts import Global
from tagmill.pipeline.places import Adoption, Place
from tagmill.pipeline.plan import StagePlan, Upstream, work
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.transforms import bitmaps, parquet, stopwatch
from tagmill.transforms.stage import BUCKET, KEPT, Stage, TableStage, named_rows, part_fingerprint


class Table(Global[TableStage[Any]]):
    """Stages that write one table. The record holds the table's file name and a digest of each row, by
    tag."""

    def check(self, stage: TableStage[Any], inputs: Sequence[Stage[Any]], run: RunFolder) -> None:
        """Check the run whose rows are kept."""
        check_kept(stage, run, inputs)

    def plan(
        self, stage: TableStage[Any], generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[TableStage[Any]]:
        """Look for a table that was made of just this."""
        if stage.kept_from is not None and not upstream.is_open(inputs):
            return _plan_rest(stage, generation, inputs, upstream)
        plan = super().plan(stage, generation, inputs, upstream)
        plan.more["table"] = stage.table
        # Without a single part nothing has to be done, but the table is there all the same.
        plan.unfinished = "" if plan.unknown or plan.tasks or "rows" in plan.more else "write an empty table"
        return plan

    def is_there(self, record: StageRecord, folder: str) -> bool:
        """Look for the table."""
        return files.exists(files.join(folder, record.more["table"]))

    def adoptions(self, record: StageRecord, place: Place) -> dict[str, Adoption]:
        """Name the table."""
        name = record.more["table"]
        size, _ = files.size_and_stamp(files.join(place.folder, name))
        return {name: place.adoption_of([name], size, {name: checks.digested(record.files[name])})}

    def make_way(self, plan: StagePlan[TableStage[Any]], run: RunFolder) -> None:
        """Remove the table that makes way for an adopted one; a new one takes its place at once."""
        super().make_way(plan, run)
        for name in plan.adopted:
            files.remove(files.join(plan.folder, name))
        if plan.tasks and plan.state is not None:
            files.replace_bytes(files.join(work(plan), KEPT), parquet.table_bytes(plan.state.table))

    def finish(self, plan: StagePlan[TableStage[Any]], upstream: Upstream) -> dict[str, PartRecord]:
        """Merge the buckets into the one table, and note a digest for every row."""
        if plan.tasks or plan.unfinished:
            stage, attempt = plan.stage, work(plan)
            buckets = [name for name in files.list_names(attempt, ".parquet") if name.startswith(BUCKET)]
            made = [parquet.read_table(files.join(attempt, name)) for name in buckets]
            table = stage.merge(made if plan.state is None else [plan.state.table, *made])
            data = parquet.table_bytes(table, {"stage": stage.name})
            files.replace_bytes(files.join(plan.folder, stage.table), data)
            plan.more["rows"] = named_rows(table)
            if plan.state is not None:
                plan.more["fingerprint"], _ = _state(stage, plan.more["rows"], upstream)
            plan.more["seconds"] = stopwatch.summed(attempt)
            files.remove(attempt)
        return served(plan)

    def files(self, plan: StagePlan[TableStage[Any]]) -> dict[str, str]:
        """Give the digest of the table's file."""
        return {plan.stage.table: files.sha256(files.join(plan.folder, plan.stage.table))}


def _plan_rest(
    stage: TableStage[Any], generation: str, inputs: list[str], upstream: Upstream
) -> StagePlan[TableStage[Any]]:
    """Plan the rows of a table that are not kept: only the parts that hold other names are read for them."""
    plan = upstream.begin_plan(stage, generation)
    plan.names = upstream.names()
    kept = kept_rows(stage, upstream.run, generation, [upstream.plans[name].stage for name in inputs])
    fingerprint, new = _state(stage, kept.digests, upstream)
    record = upstream.run.read_record(stage.name, generation)
    if (
        record
        and record.more["fingerprint"] == fingerprint
        and files.exists(stage.output_uri(plan.folder, ""))
    ):
        plan.more = dict(record.more)
        return plan
    plan.state = kept
    plan.more = {"fingerprint": fingerprint, "table": stage.table}
    for name, digests in new.items():
        plan.tasks.append(upstream.task(stage, inputs, name, part_fingerprint(stage, digests)))
        plan.reasons.append(f"{name}: it holds what has no row yet")
    plan.unfinished = f"keep {len(kept.digests)} rows of the table" if not plan.tasks else ""
    return plan


def _state(
    stage: TableStage[Any], rows: Mapping[str, str], upstream: Upstream
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Give the fingerprint of a table with these rows, and the digests of the parts that hold other names.

    What has no row though it was looked for lives in no part any more: such parts may be there for good.
    """
    inputs, came = [name for name in stage.inputs() if name in upstream.plans], upstream.came()
    new = {
        name: upstream.digests(stage, inputs, name) | {"rows": bitmaps.dump(rows_in).hex()}
        for name, rows_in in came.items()
        if any(set(upstream.records[other].parts[name].tags) - rows.keys() for other in inputs)
    }
    kept = [list(row) for row in sorted(rows.items())]
    return part_fingerprint(stage, {"kept": kept, "parts": list(new.items())}), new
