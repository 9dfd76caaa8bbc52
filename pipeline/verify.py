"""Verification: does what lies in a run's folder still match what was recorded of it?

Every file of the stages is covered by a digest: parts and what lies beside them by the record of their stage,
records and pointers by their own, run.yaml by its last line, the tables of the report by a note beside them.
What the summary says of the records is compared with them.
Whoever edits a file and all that speaks of it is told by the digest of the whole run, if that was kept.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from tagmill.pipeline import checks, ledger, records
from tagmill.pipeline.current import current_records
from tagmill.pipeline.growth import WHOLE
from tagmill.pipeline.kinds import KINDS
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import CONFIG, MADE_OF, REPORT, SEALS, UNNEEDED, RunFolder
from tagmill.pipeline.summary import SUMMARY, SummaryCheck
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.errors import DamageError

LEFTOVERS = (*UNNEEDED, records.FOLDER)
"""Folders of a generation that are not checked against its record: gc removes them, or they have digests."""

Verified = tuple[str, int, list[str]]
"""A stage or another part of a run, how many files were checked, and what is wrong."""


def verify(run: RunFolder) -> Iterator[Verified]:
    """Check the run's own files, every finished generation of every stage, and the report."""
    is_sound = run.is_config_sound()
    yield CONFIG, 1, [] if is_sound else [f"{run.path(CONFIG)} was changed since it was written; run again"]
    if not is_sound:
        return  # it says which stages there are
    finished = run.finished()
    for stage in dict.fromkeys([*run.stages(), *finished]):
        problems = [*_pointers(run, stage), *_missing(run, stage, finished)]
        if problems:
            yield stage, 1, problems
    summary = SummaryCheck(run)
    for stage in run.stages():
        for generation in run.generations(stage):
            is_whole = finished.get(stage) == generation
            yield from _generation(run, stage, generation, summary, is_whole=is_whole)
    if files.exists(run.path(WHOLE)):
        yield WHOLE, 1, list(_note(run.path(WHOLE)))
    if summary.is_there:
        yield SUMMARY, 1, list(summary.problems())
    yield from _report(run)


def _pointers(run: RunFolder, stage: str) -> Iterator[str]:
    """Check the notes that say which generation is current, and that nothing else lies beside them."""
    folder = run.path(stage)
    uris = (ledger.note_uri(folder, note_id) for note_id in ledger.note_ids(folder))
    notes_there = {uri.rpartition("/")[2] for uri in uris}
    for name in files.list_names(folder):
        uri = files.join(folder, name)
        if name not in notes_there:
            yield f"{uri} does not belong there"
        else:
            yield from _note(uri, "generation", "keep")
    if not notes_there and any(_has_record(run, stage, generation) for generation in run.generations(stage)):
        yield f"{folder}: the note which generation is current is missing; run again"


def _missing(run: RunFolder, stage: str, finished: dict[str, str]) -> Iterator[str]:
    """Check that a stage is as it was when the run was last whole."""
    current = _current(run, stage)
    if stage in finished and not run.generations(stage):
        yield f"{run.path(stage)} is missing; run again"
    elif stage in finished and current not in (finished[stage], None):
        yield f"{run.generation(stage, finished[stage])} was current when the run was whole, and is not now"
    if current and not _has_record(run, stage, current):
        yield f"{run.generation(stage, current)}: its record is missing; run again"


def _current(run: RunFolder, stage: str) -> str | None:
    """Name the current generation of a stage; None also if its note is damaged, which is named."""
    try:
        return run.current(stage)
    except DamageError:
        return None


def _has_record(run: RunFolder, stage: str, generation: str) -> bool:
    return bool(ledger.note_ids(files.join(run.generation(stage, generation), records.FOLDER)))


def _note(uri: str, *keys: str) -> Iterator[str]:
    try:
        notes.read(uri, *keys)
    except FileNotFoundError:
        yield f"{uri} is missing"
    except DamageError as error:
        yield str(error)


def _generation(
    run: RunFolder, stage: str, generation: str, summary: SummaryCheck, *, is_whole: bool
) -> Iterator[Verified]:
    """Check all that lies in the folder of a generation, if it was ever finished.

    While it is being made again, more may lie there than its record speaks of.
    """
    folder = run.generation(stage, generation)
    if not _has_record(run, stage, generation):
        return
    sizes = files.walk_sizes(folder)
    record, problems = _records(folder, sizes)
    expected: dict[str, checks.Check] = {}
    if record is not None:
        if record.kind not in KINDS:
            problems.append(f"{folder}: its record names an unknown kind of stage, {record.kind!r}")
        else:
            expected = KINDS[record.kind].checks(folder, record)
        expected |= {name: checks.digested(digest) for name, digest in record.files.items()}
        problems += checks.run(folder, expected, sizes)
        if is_whole:
            extra = _extra(sizes, expected)
            problems += [f"{files.join(folder, name)} does not belong there" for name in extra]
        if _current(run, stage) == generation:
            summary.add(record)
            problems += _chain(run, record) if is_whole else ()
    yield stage, max(1, len(expected)), problems


def _records(folder: str, sizes: Mapping[str, int]) -> tuple[StageRecord | None, list[str]]:
    """Check every record of a generation and its tables; gives the one that counts, unless it is damaged."""
    record: StageRecord | None = None
    problems: list[str] = []
    within = files.join(folder, records.FOLDER)
    there = {files.join(folder, name).removeprefix(f"{within}/"): size for name, size in sizes.items()}
    known: set[str] = set()
    for note_id in ledger.note_ids(within):
        uri = ledger.note_uri(within, note_id)
        known.add(uri.rpartition("/")[2])
        record = None  # an earlier one does not count
        try:
            found = notes.read(uri, "stage")
            known |= records.tables_of(found)
            record = records.parse_record(found, folder, uri)
            problems += checks.run(within, _tables(record, there), there)
        except DamageError as error:
            problems.append(str(error))
    if record is not None:
        problems += [f"{files.join(within, n)} is missing" for n in record.tables if n not in there]
    for name in files.list_names(within):
        # A table without its record was left by an interruption; nobody reads it.
        if name not in known and not records.is_table_name(name):
            problems.append(f"{files.join(within, name)} does not belong there")
    return record, problems


def _tables(record: StageRecord | None, there: Collection[str]) -> dict[str, checks.Check]:
    """Give the checks of the tables beside a record that are there: an older one's may be gone."""
    tables = record.tables if record else {}
    return {name: checks.sealed(seal) for name, seal in tables.items() if name in there}


def _extra(names: Iterable[str], expected: dict[str, checks.Check]) -> list[str]:
    """Pick the files below a generation's folder that its record does not speak of."""
    found = sorted(name for name in names if name.partition("/")[0] not in LEFTOVERS)
    return [name for name in found if name not in expected]


def _chain(run: RunFolder, record: StageRecord) -> Iterator[str]:
    """Check that a stage was made from what is current of its inputs."""
    for stage, generation in record.inputs.items():
        if _current(run, stage) != generation:
            yield f"{record.stage} was made from {run.generation(stage, generation)}, which is not current"


def _report(run: RunFolder) -> Iterator[Verified]:
    """Check the tables of the report; other files there are the user's own."""
    folder = run.path(REPORT)
    tables = files.list_names(folder, ".parquet")
    if not tables and not files.exists(files.join(folder, SEALS)):
        return
    try:
        seals = notes.read(files.join(folder, SEALS))
    except FileNotFoundError:
        yield REPORT, 1, [f"{files.join(folder, SEALS)} is missing; run again"]
    except DamageError as error:
        yield REPORT, 1, [str(error)]
    else:
        sealed = {name: checks.sealed(seal) for name, seal in seals.items() if name != MADE_OF}
        problems = list(checks.run(folder, sealed, files.walk_sizes(folder)))
        problems += [f"{files.join(folder, n)} does not belong there" for n in tables if n not in seals]
        yield REPORT, len(sealed), problems


def check_root(run: RunFolder, digest: str) -> Iterator[Verified]:
    """Compare the digest of the whole run, as `status` prints it, with one that was kept."""
    found = records.root_digest(current_records(run))
    wrong = f"the digest of the run's bytes is {found}, not {digest}: records and files were changed together"
    yield "root", 1, [] if found == digest else [wrong]
