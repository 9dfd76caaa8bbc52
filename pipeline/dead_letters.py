"""How much of a stage's input may die before the run stops, and what is said then."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tagmill.pipeline.current import current_records
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, Reason, TooManyDeadError
from tagmill.transforms import parquet, parts
from tagmill.transforms.parts import Unit

COUNTED: tuple[Unit, ...] = ("example", "caption")
"""Units of which in = out + dropped + dead."""

UNITS: tuple[Unit, ...] = (*COUNTED, "field")


def check_fraction(run: RunFolder, record: StageRecord, most: float, of_what: str) -> None:
    """Check that at most the fraction `most` of a stage's examples is dead, and of their captions on average.

    Of captions it is the mean over the examples that have some, of the fraction of each that died: every
    example weighs the same, so no single one can end a run by the number of its captions.

    Raises:
        TooManyDeadError: More died; names the folder, and each reason with one of its dead letters.
    """
    for unit in COUNTED:
        dead, total = record.count(unit, "dead"), record.count(unit, "in")
        lost: float = dead
        of_all = total
        if unit == "caption":
            of_all = sum(part.counts.captioned for part in record.parts.values())
            lost = sum(part.counts.caption_loss for part in record.parts.values())
        if lost > most * of_all:
            share = "" if unit == "example" else f" ({lost / of_all:.1%} of an example's, on average)"
            found = list(by_reason(run, record, [unit]))
            raise TooManyDeadError(
                f"{record.stage}: {dead} {of_what} {total} {unit}s{share} are dead letters, more than "
                f"max_dead_fraction {most} allows; {found[0].said()}; see {_folder(run, record)}",
                *(f"  {one.said()}" for one in found[1:]),
            )
    _check_labels(run, record, most)


def _check_labels(run: RunFolder, record: StageRecord, most: float) -> None:
    """Check the same of given labels: the mean over examples that have some. Raises TooManyDeadError."""
    counts = [part.notes["fields"] for part in record.parts.values() if "fields" in part.notes]
    labelled, loss = (sum(count[what] for count in counts) for what in ("labelled", "label_loss"))
    if loss > most * labelled:
        found = {one.reason: one.said() for one in by_reason(run, record, ["field"])}
        raise TooManyDeadError(
            f"{record.stage}: {loss / labelled:.1%} of an example's labels, on average, are dead letters, "
            f"more than max_dead_fraction {most} allows; {found[Reason.LABEL_INVALID]}; see "
            f"{_folder(run, record)}; `labels` of the input names another field, or none with null"
        )


def parse_retry(run: RunFolder, text: str) -> tuple[str, str]:
    """Read `STAGE` or `STAGE:REASON`, whose dead letters are to be tried again.

    Raises ConfigError if the run has none there.
    """
    stage, _, reason = text.partition(":")
    found = [one for record in current_records(run) for one in by_reason(run, record, COUNTED)]
    if any(one.stage == stage and reason in (one.reason, "") for one in found):
        return stage, reason
    there = ", ".join(dict.fromkeys(f"{one.stage}:{one.reason}" for one in found)) or "none at all"
    raise ConfigError(f"--retry-dead {text}: {run.root} has no such dead letters; it has {there}")


@dataclass(frozen=True)
class DeadReason:
    """How many dead letters a stage has for one reason, and the key and detail of one of them."""

    stage: str
    unit: Unit
    reason: str
    count: int
    key: str = ""
    detail: str = ""

    def said(self) -> str:
        """Say it in a line."""
        such = f", such as {self.key}: {self.detail}" if self.key else ""
        return f"{self.count} are {self.reason}{such}"


class Counted(NamedTuple):
    """A reason of dead letters, how many there are for it, and the first part that has one."""

    reason: str
    number: int
    part: str


def reasons_of(record: StageRecord, unit: Unit) -> list[Counted]:
    """Count a stage's dead letters of a unit by reason, the commonest first."""
    places: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name, part in record.parts.items():
        found = dead_of(part)[unit]
        counts.update(found)
        places |= {reason: name for reason in found if reason not in places}
    return [Counted(reason, count, places[reason]) for reason, count in counts.most_common()]


def with_examples(
    run: RunFolder, stage: str, generation: str, found: Mapping[Unit, Iterable[Counted]]
) -> Iterator[DeadReason]:
    """Look for an example of each reason of a stage's dead letters."""
    for unit, reasons in found.items():
        for one in reasons:
            key, detail = _example(run.generation(stage, generation), one.part, unit, one.reason)
            yield DeadReason(stage, unit, one.reason, one.number, key, detail)


def by_reason(run: RunFolder, record: StageRecord, units: Iterable[Unit] = UNITS) -> Iterator[DeadReason]:
    """Count a stage's dead letters by unit and reason, the commonest first, with an example of each."""
    found = {unit: reasons_of(record, unit) for unit in units}
    yield from with_examples(run, record.stage, record.generation, found)


def dead_of(part: PartRecord) -> dict[Unit, dict[str, int]]:
    """Count a part's dead letters by unit and reason."""
    return {"example": part.counts.dead, "caption": part.counts.dead_captions, "field": part.lost_fields}


def _example(folder: str, name: str, unit: Unit, reason: str) -> tuple[str, str]:
    """Give key and detail of a part's first dead letter for a reason; empty if its file is gone."""
    uri = parts.dead_uri(folder, name)
    letters = parquet.read_table(uri).to_pylist() if files.exists(uri) else []
    for one in letters:
        if (one["unit"], one["reason"]) == (unit, reason):
            return one["key"], one["detail"]
    return "", ""


def _folder(run: RunFolder, record: StageRecord) -> str:
    return files.join(run.generation(record.stage, record.generation), "dead")
