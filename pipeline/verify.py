"""Verification: does what lies in a run's folder still match what was recorded of it?"""

from collections.abc import Iterator

from tagmill.pipeline import ledger
from tagmill.pipeline.current import current_records
from tagmill.pipeline.kinds import KINDS
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder


def verify(run: RunFolder) -> Iterator[tuple[str, int, list[str]]]:
    """Check the current generation of every stage; gives stage, things checked, and what is wrong."""
    yield from _unrecorded(run)
    for record in current_records(run):
        folder = run.generation(record.stage, record.generation)
        problems = [*KINDS[record.kind].verify(folder, record), *_chain(run, record)]
        yield record.stage, max(1, len(record.parts)), problems


def _unrecorded(run: RunFolder) -> Iterator[tuple[str, int, list[str]]]:
    """Find stages of which a note is missing that says what their parts are."""
    for stage in run.stages():
        folder = run.path(stage)
        finished = [g for g in run.generations(stage) if run.read_record(stage, g)]
        if finished and ledger.latest(folder) is None:
            yield stage, 1, [f"{folder}: the note which generation is current is missing; run again"]
        elif (generation := run.current(stage)) and generation not in finished:
            yield stage, 1, [f"{run.generation(stage, generation)}: its record is missing; run again"]


def _chain(run: RunFolder, record: StageRecord) -> Iterator[str]:
    """Check that a stage was made from what is current of its inputs."""
    for stage, generation in record.inputs.items():
        if run.current(stage) != generation:
            yield f"{record.stage} was made from {run.generation(stage, generation)}, which is not current"
