"""Stages that make one table of all parts, of which later stages read the rows of their own tags."""

from typing import Any

from tagmill.pipeline.kinds.base import served
from tagmill.pipeline.kinds.global_parts import Global
from tagmill.pipeline.plan import Adoption, StagePlan, Upstream, work
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.transforms import parquet
from tagmill.transforms.stage import BUCKET, TableStage, named_rows


class Table(Global[TableStage[Any]]):
    """Stages that write one table. The record holds the table's file name and a digest of each row, by
    tag."""

    def plan(
        self, stage: TableStage[Any], generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[TableStage[Any]]:
        """Look for a table that was made of just this."""
        plan = super().plan(stage, generation, inputs, upstream)
        plan.more["table"] = stage.table
        # Without a single part nothing has to be done, but the table is there all the same.
        plan.unfinished = "" if plan.unknown or plan.tasks or "rows" in plan.more else "write an empty table"
        return plan

    def is_there(self, record: StageRecord, folder: str) -> bool:
        """Look for the table."""
        return files.exists(files.join(folder, record.more["table"]))

    def adoptions(self, record: StageRecord, folder: str) -> dict[str, Adoption]:
        """Name the table."""
        name = record.more["table"]
        return {name: Adoption(folder, (name,), files.size_and_stamp(files.join(folder, name))[0])}

    def make_way(self, plan: StagePlan[TableStage[Any]], run: RunFolder) -> None:
        """Remove the table that makes way for an adopted one; a new one takes its place at once."""
        super().make_way(plan, run)
        for name in plan.adopted:
            files.remove(files.join(plan.folder, name))

    def finish(self, plan: StagePlan[TableStage[Any]], upstream: Upstream) -> dict[str, PartRecord]:
        """Merge the buckets into the one table, and note a digest for every row."""
        if plan.tasks or plan.unfinished:
            stage, attempt = plan.stage, work(plan)
            buckets = [name for name in files.list_names(attempt, ".parquet") if name.startswith(BUCKET)]
            table = stage.merge(parquet.read_table(files.join(attempt, name)) for name in buckets)
            data = parquet.table_bytes(table, {"stage": stage.name})
            files.replace_bytes(files.join(plan.folder, stage.table), data)
            plan.more["rows"] = named_rows(table)
            files.remove(attempt)
        return served(plan)

    def files(self, plan: StagePlan[TableStage[Any]]) -> dict[str, str]:
        """Give the digest of the table's file."""
        return {plan.stage.table: files.sha256(files.join(plan.folder, plan.stage.table))}
