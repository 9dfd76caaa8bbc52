"""What is current of a run: the records of its stages, and which examples live."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tagmill.pipeline import records
from tagmill.pipeline.accounts import known_parts
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder, named_parts
from tagmill.tag_system.core import files

AT_ONCE = 4
"""Records that are read together: each may be large."""

MOST_OPENED = 200
"""Parts of a stage that is being made which are opened to see what became of their examples."""

_NUMBERED = re.compile(r".+-\d+")
"""What parts are called; other files, such as the index of a shard, have names that end otherwise."""


def current_records(run: RunFolder) -> Iterator[StageRecord]:
    """Read the records of the stages' current generations, in the order that the stages were passed."""

    def read(stage: str) -> StageRecord | None:
        generation = run.current(stage)
        return records.read_record(run.generation(stage, generation)) if generation else None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from filter(None, pool.map(read, run.stages()))


@dataclass(frozen=True)
class Begun:
    """A generation that was begun and never finished: how many parts lie there, and the record of some."""

    record: StageRecord
    parts: int


def begun_records(run: RunFolder) -> Iterator[Begun]:
    """Make records of what lies in generations that were begun and never finished, from the parts there.

    Of many parts, the first `MOST_OPENED` are opened.
    """
    stages = run.stages()
    with ThreadPoolExecutor(files.THREADS) as pool:
        begun = list(zip(stages, pool.map(run.begun, stages), strict=True))
    for stage, generation in [(stage, one) for stage, found in begun for one in found]:
        if run.read_record(stage, generation) is None:
            listed = files.list_names(run.generation(stage, generation))
            names = sorted(name for name in named_parts(listed) if _NUMBERED.fullmatch(name))
            found = known_parts(run, stage, generation, names[:MOST_OPENED], listed)
            if found:
                yield Begun(StageRecord(stage, "", 0, generation, {}, parts=found), len(names))


def living_rows(run: RunFolder) -> dict[str, int]:
    """Give the rows of each part of ingest whose examples are in the dataset, as bitmaps."""
    living: dict[str, int] = {}
    for record in current_records(run):
        if not living or living.keys() == record.parts.keys():
            living = {name: part.living for name, part in record.parts.items()}
    return living
