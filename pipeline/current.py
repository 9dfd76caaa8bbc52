"""What is current of a run: the records of its stages, and which examples live."""

from collections.abc import Iterator

from tagmill.pipeline.accounts import known_parts
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder


def current_records(run: RunFolder) -> Iterator[StageRecord]:
    """Read the records of the stages' current generations, in the order that the stages were passed."""
    for stage in run.stages():
        generation = run.current(stage)
        record = run.read_record(stage, generation) if generation else None
        if record:
            yield record


def begun_records(run: RunFolder) -> Iterator[StageRecord]:
    """Make records of what lies in generations that were begun and never finished, from the parts there."""
    for stage in run.stages():
        current = run.current(stage)
        for generation in run.begun(stage):
            if generation != current and run.read_record(stage, generation) is None:
                found = known_parts(run, stage, generation)
                if found:
                    yield StageRecord(stage, "", 0, generation, {}, parts=found)


def living_rows(run: RunFolder) -> dict[str, int]:
    """Give the rows of each part of ingest whose examples are in the dataset, as bitmaps."""
    living: dict[str, int] = {}
    for record in current_records(run):
        if not living or living.keys() == record.parts.keys():
            living = {name: part.living for name, part in record.parts.items()}
    return living
