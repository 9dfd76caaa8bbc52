"""The rows of a stage's table that stay as they are, so that new input makes no finished part again.

They are those of the run that the stage names, and then those that this run has itself. A row is kept even if
nothing of what it was made of is in the dataset any more.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.other_runs import is_same, open_other
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.transforms import parquet
from tagmill.transforms.stage import Stage, TableStage, named_rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptRows:
    """Rows of a table, and the digest of each, by the name in its first column."""

    table: pa.Table
    digests: dict[str, str]


def kept_rows(
    stage: TableStage[Any], run: RunFolder, generation: str, inputs: Sequence[Stage[Any]]
) -> KeptRows:
    """Read the rows of a stage's table that are kept, if the stage names a run for them.

    Args:
        stage: The stage.
        run: The run.
        generation: The stage's generation.
        inputs: The stages that the table is made of.

    Raises:
        ConfigError: The run that the stage names does not have such a table, or made it of something else.
        DamageError: A table is damaged.
    """
    kept = stage.schema.empty_table()
    if not is_same(stage.kept_from or "", run):
        kept = _of_other(stage, inputs)
    own = _own(stage, run, generation, inputs)
    is_new = pc.invert(pc.is_in(own.column(0), kept.column(0).combine_chunks()))
    table = stage.merge([kept, own.filter(is_new)])
    return KeptRows(table, named_rows(table))


def check_kept(stage: TableStage[Any], run: RunFolder, inputs: Sequence[Stage[Any]]) -> None:
    """Check the run that a stage names, before anything is made; raises as `kept_rows` does."""
    if stage.kept_from is not None and not is_same(stage.kept_from, run):
        _record_of_other(stage, inputs)


def _of_other(stage: TableStage[Any], inputs: Sequence[Stage[Any]]) -> pa.Table:
    run, record = _record_of_other(stage, inputs)
    uri = stage.output_uri(run.generation(stage.name, record.generation), "")
    return _read(stage, uri, record)


def _record_of_other(stage: TableStage[Any], inputs: Sequence[Stage[Any]]) -> tuple[RunFolder, StageRecord]:
    key, root = f"{stage.name}.from", stage.kept_from or ""
    run = open_other(key, root)
    generation = run.current(stage.name)
    record = run.read_record(stage.name, generation) if generation else None
    if record is None:
        raise ConfigError(
            f"{key}: {root} has not finished {stage.name}; run it that far, or name another run"
        )
    if changed := _changed(stage, run, record, inputs):
        raise ConfigError(
            f"{key}: {root} was made with another {changed}, so its table says nothing of this run; set that "
            "as it is there, or name another run"
        )
    return run, record


def _own(stage: TableStage[Any], run: RunFolder, generation: str, inputs: Sequence[Stage[Any]]) -> pa.Table:
    """Read the table that this run has; one that is being made again has no record, and counts as it lies
    there: it is whole, whether it is the old or the new one.
    """
    none = stage.schema.empty_table()
    current = run.current(stage.name) or generation  # which it was before the stage was switched off
    uri = stage.output_uri(run.generation(stage.name, current), "")
    record = run.read_record(stage.name, current)
    if not files.exists(uri):
        if record is not None:
            _log.warning("%s: made anew for all, as %s is missing", stage.name, uri)
        return none
    if current != generation and (record is None or (changed := _changed(stage, run, record, inputs))):
        what = changed if record else "config"
        _log.warning("%s: made anew for all, as the table there was made with another %s", stage.name, what)
        return none
    return _read(stage, uri, record)


def _changed(
    stage: TableStage[Any], run: RunFolder, record: StageRecord, inputs: Iterable[Stage[Any]]
) -> str:
    """Name a stage that is not as it was when a table was made, or ""."""
    if record.version != stage.version:
        return stage.name
    for now in inputs:
        generation = record.inputs.get(now.name)
        before = run.read_record(now.name, generation) if generation else None
        if before is None or (before.version, before.spec) != (now.version, now.spec):
            return now.name
    return ""


def _read(stage: TableStage[Any], uri: str, record: StageRecord | None) -> pa.Table:
    table = parquet.read_table(uri).replace_schema_metadata()
    if record is not None and named_rows(table) != record.more["rows"]:
        raise DamageError(f"{uri} is not as it was recorded; remove it and run again")
    return table.cast(stage.schema)
