"""How much of a stage's input may die before the run stops, and what is said then."""

from collections import Counter

from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import TooManyDeadError
from tagmill.transforms import parquet, parts
from tagmill.transforms.parts import Unit

UNITS: tuple[Unit, ...] = ("example", "caption")


def check_fraction(run: RunFolder, record: StageRecord, most: float, of_what: str) -> None:
    """Check that at most the fraction `most` of a stage's examples is dead, and of their captions on average.

    Of captions it is the mean over the examples that have some, of the fraction of each that died: every
    example weighs the same, so no single one can end a run by the number of its captions.

    Raises:
        TooManyDeadError: More died; names the most common reason, one of its dead letters, and the folder.
    """
    for unit in UNITS:
        dead, total = record.count(unit, "dead"), record.count(unit, "in")
        lost: float = dead
        of_all = total
        if unit == "caption":
            of_all = sum(part.counts.captioned for part in record.parts.values())
            lost = sum(part.counts.caption_loss for part in record.parts.values())
        if lost > most * of_all:
            share = "" if unit == "example" else f" ({lost / of_all:.1%} of an example's, on average)"
            raise TooManyDeadError(
                f"{record.stage}: {dead} {of_what} {total} {unit}s{share} are dead letters, more than "
                f"max_dead_fraction {most} allows{_commonest(run, record, unit)}"
            )


def _commonest(run: RunFolder, record: StageRecord, unit: Unit) -> str:
    """Say what most of a stage's dead letters are, by one of them, and where all are."""
    folder = run.generation(record.stage, record.generation)
    reasons: Counter[str] = Counter()
    for part in record.parts.values():
        reasons.update(part.counts.dead if unit == "example" else part.counts.dead_captions)
    ((reason, count),) = reasons.most_common(1)
    for name in record.parts:
        uri = parts.dead_uri(folder, name)
        letters = parquet.read_table(uri).to_pylist() if files.exists(uri) else []
        for one in letters:
            if (one["unit"], one["reason"]) == (unit, reason):
                said = f"{count} are {reason}, such as {one['key']}: {one['detail']}"
                return f"; {said}; see {files.join(folder, 'dead')}"
    return f"; see {files.join(folder, 'dead')}"
