"""Counts what came into each part and what happened to it, over the rows that live now.

A part that was made for more rows than live now is still used, but its own counts are then too high.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tagmill.pipeline.records import PartRecord
from tagmill.pipeline.run_folder import RunFolder, named_parts
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError
from tagmill.transforms import parquet, parts
from tagmill.transforms.parts import Counts, Footer


def read_footers(folder: str, names: Iterable[str]) -> dict[str, Footer]:
    """Read the footers of parts, many at a time. Raises DamageError for one that cannot be read."""
    listed = list(names)
    with ThreadPoolExecutor(files.THREADS) as pool:
        footers = pool.map(lambda name: _read_footer(parts.part_uri(folder, name)), listed)
        return dict(zip(listed, footers, strict=True))


def _read_footer(uri: str) -> Footer:
    try:
        footer = parts.read_footer(uri)
    except ValueError as error:
        raise DamageError(f"{uri} cannot be read ({error}); remove it and run again") from error
    if not footer.header.adds_up():
        raise DamageError(f"{uri} has lost a row twice, or one that did not come in; remove it and run again")
    return footer


def known_parts(
    run: RunFolder,
    stage: str,
    generation: str,
    names: Iterable[str] | None = None,
    listed: Collection[str] | None = None,
) -> dict[str, PartRecord]:
    """Give the records of the parts that are complete in a generation's folder: of `names`, or of all.

    Parts that the stage's record does not list, such as after an interruption, are read from their footers.
    `listed` spares the look into the folder: the names of its files.
    """
    folder = run.generation(stage, generation)
    if listed is None:
        listed = files.list_names(folder)
    there = named_parts(listed)
    if names is not None:
        there &= set(names)
    record = run.read_record(stage, generation)
    known = {name: part for name, part in (record.parts if record else {}).items() if name in there}
    footers = read_footers(folder, sorted(there - set(known)))
    known |= {name: PartRecord.of(footer) for name, footer in footers.items()}
    beside = set(listed)
    if any("dead" in part.beside for part in known.values()):
        beside |= {f"dead/{name}" for name in files.list_names(files.join(folder, "dead"))}
    return {name: part for name, part in known.items() if beside.issuperset(part.files()[:-1])}


def account(
    folder: str,
    ingested: Callable[[str], str],
    found: Mapping[str, PartRecord],
    came: Mapping[str, int],
    removed: Mapping[str, int],
) -> dict[str, PartRecord]:
    """Count parts again over the rows that come in now.

    Args:
        folder: Folder of the parts' generation.
        ingested: Names the file of ingest's part of a name.
        found: The parts.
        came: Bitmap of the rows that come in now, by part.
        removed: Bitmap of the rows that earlier stages removed, by part.

    Returns:
        The parts with their new counts.
    """
    changed = [name for name, part in found.items() if part.came != came[name]]
    footers = read_footers(folder, changed)
    accounted = {}
    for name, part in found.items():
        lost = part.lost
        if name in footers:
            header = footers[name].header
            counts, lost = _counts(header, came[name], ingested(name)), header.lost & came[name]
            part = replace(part, counts=counts, came=came[name])
        accounted[name] = part.with_removed(removed[name] | lost)
    return accounted


def _counts(header: parts.Header, came: int, ingested: str) -> Counts:
    """Count what came into a part, and what happened to it, over the rows `came` of the file of ingest's."""

    def living(reasons: Mapping[str, list[int]]) -> dict[str, int]:
        counted = {reason: sum(came >> row & 1 for row in rows) for reason, rows in reasons.items()}
        return {reason: count for reason, count in counted.items() if count}

    captions = header.captions
    if captions and came != header.rows:
        examples = parquet.read_table(ingested, ["row", "captions"]).to_pylist()
        given = [example["captions"] for example in examples if came >> example["row"] & 1]
        captions = sum(text is not None for texts in given for text in texts)
    reasons = (header.dropped, header.dead, header.dead_captions)
    dropped, dead, dead_captions = map(living, reasons)
    counts = Counts(came.bit_count(), captions, dropped, dead, dead_captions)
    return counts.weighed(*header.caption_losses(came))
