"""The record that the driver writes of a finished stage, so that its parts need not be opened again.

RUN/<stage>/<gen>/records/_STAGE-<token>-<n>.json   the parts in order: digests, counts, notes, times
RUN/<stage>/<gen>/records/rows-<token>-<n>.parquet  what is large: bitmaps of rows and of tags, see
`ROWS_SCHEMA`
RUN/<stage>/<gen>/records/<what>-<token>-<n>.parquet  what a kind of stage wants to look up, see `Kind.tables`

A table that is missing, as in a run of an older version, is done without, but for that of the rows.
"""

import gc
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.pipeline import ledger
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.digests import list_digest
from tagmill.tag_system.core.errors import DamageError
from tagmill.tag_system.core.stores import StoreError
from tagmill.transforms import bitmaps, image_copies, parquet, parts
from tagmill.transforms.parts import Counts, Footer, Unit
from tagmill.transforms.stage import ROWS_SCHEMA

FOLDER = "records"


@dataclass(frozen=True)
class PartRecord:
    """The record of a part.

    Attributes:
        name: The part's name.
        fingerprint: Hash of what made it, see `Header`.
        digest: Hash of its content.
        seal: Hash of the file's bytes.
        size: The file's size in bytes.
        beside: sha256 of the files beside it.
        base: The fingerprint without the slices that it depends on.
        slices: Digest of each slice that a later stage may depend on.
        counts: What came in and what happened to it, over the rows `came`.
        notes: What later planning needs without reading the table.
        seconds: Times, by what they were spent on.
        made_for: Bitmap of the rows for which it was made.
        came: Bitmap of those of them that came in.
        removed: Bitmap of the rows that this stage or an earlier one removed.
        tags: Tags that the table holds, if later stages depend on them.
        was: Digests before rows were taken out, see `Header`.
    """

    name: str
    fingerprint: str
    digest: str
    seal: str
    size: int
    beside: dict[str, str]
    base: str
    slices: dict[str, str]
    counts: Counts
    notes: dict[str, Any]
    seconds: dict[str, float]
    made_for: int = 0
    came: int = 0
    removed: int = 0
    tags: tuple[str, ...] = ()
    was: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, footer: Footer) -> "PartRecord":
        """Make the record from a part's footer, for a part all of whose rows came in."""
        header = footer.header
        return cls(
            header.name,
            header.fingerprint,
            header.digest,
            footer.seal,
            footer.size,
            header.files,
            header.base,
            header.slices,
            header.counts,
            header.notes,
            header.seconds,
            header.rows,
            header.rows,
            header.lost,
            tuple(header.tags),
            header.was,
        )

    @property
    def lost_fields(self) -> dict[str, int]:
        """How many examples lost a field, such as labels, and live on, by reason."""
        found: dict[str, int] = self.notes.get("fields", {}).get("lost", {})
        return found

    @property
    def lost(self) -> int:
        """The rows that came in and do not live after the stage."""
        return self.came & self.removed

    @property
    def living(self) -> int:
        """The rows that live after the stage."""
        return self.came & ~self.removed

    def with_removed(self, removed: int) -> "PartRecord":
        """Give the record with other rows removed; itself if they are the same, which most often they are."""
        return self if removed == self.removed else replace(self, removed=removed)

    def digest_of(self, part_slice: str | None, *, before: bool = False) -> str:
        """Give the digest of a slice, or of the whole: as it is, or `before` rows were taken out."""
        now = self.digest if part_slice is None else self.slices[part_slice]
        return self.was.get(part_slice or parts.WHOLE, now) if before else now

    def file_beside(self, what: str) -> str:
        """Name the file beside the part, `dead`, `array` or `images`, in its generation's folder."""
        if what == "dead":
            return f"dead/{self.name}{parts.SUFFIX}"
        return self.name + {"array": parts.ARRAY_SUFFIX, "images": image_copies.SUFFIX}[what]

    def files(self) -> list[str]:
        """Name the part's files in its generation's folder, the part last: it makes the others count."""
        return [*map(self.file_beside, sorted(self.beside)), f"{self.name}{parts.SUFFIX}"]


MEASURED = ("wall", "seconds")
"""What `more` has of times: of the last job, and of work that is not of one part."""

BITMAPS = ("made_for", "came", "removed", "tags")
"""The fields that a record stores in its table, not in its JSON."""


@dataclass
class StageRecord:
    """The record of a finished stage.

    Attributes:
        stage: The stage's name.
        kind: Its kind.
        version: Its version.
        generation: Name of the generation.
        spec: What decided the output, see `Stage.spec`.
        settings: The whole config of the stage.
        inputs: The generation of each input.
        parts: Records of its parts, in order.
        more: What else its kind records.
        files: Digests of what else lies in the generation's folder, by name.
        libraries: Versions of the libraries.
        rows: URI of the table beside the record; empty before it is written.
        rows_seal: Hash of the table's bytes.
        tables: Hash of the bytes of each other table beside the record, by the name of its file.
    """

    stage: str
    kind: str
    version: int
    generation: str
    spec: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    parts: dict[str, PartRecord] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    rows: str = field(default="", compare=False)
    rows_seal: str = field(default="", compare=False)
    tables: dict[str, str] = field(default_factory=dict, compare=False)

    def table(self, what: str) -> str | None:
        """Give the uri of a table beside the record; None if the record names none."""
        names = (name for name in self.tables if name.startswith(f"{what}-"))
        return next((files.join(self.rows.rpartition("/")[0], name) for name in names), None)

    def has_table(self, what: str) -> bool:
        """Tell whether a table beside the record is there."""
        uri = self.table(what)
        return uri is not None and files.exists(uri)

    def count(self, unit: Unit, what: str) -> int:
        """Sum a count over the parts, such as ("example", "dead")."""
        return sum(part.counts.number(unit, what) for part in self.parts.values())

    def losses(self) -> dict[str, int]:
        """Count the examples that came in and were dropped or died, by reason."""
        lost: Counter[str] = Counter()
        for part in self.parts.values():
            lost.update(part.counts.dropped)
            lost.update(part.counts.dead)
        return dict(sorted(lost.items()))

    def content(self) -> dict[str, Any]:
        """Give the content that is equal in equal runs: without bytes, times and the stamps of sources."""
        summaries = [[part.name, part.digest, vars(part.counts)] for part in self.parts.values()]
        more = _without(self.more, MEASURED)
        return {
            "stage": self.stage,
            "version": self.version,
            "spec": self.spec,
            "parts": summaries,
            "more": more,
        }


ROWS = "rows"
"""What the table is called that every record has."""


def write_record(
    folder: str, token: int, record: StageRecord, more: Mapping[str, bytes] | None = None
) -> None:
    """Add a record, and before it its tables, to a generation's folder; notes in the record where they are.

    `more` are other Parquet files, by what they are of; they are written again or not there any more.
    """
    within = files.join(folder, FOLDER)
    rows = parquet.table_bytes(_rows(record))
    tables = {ROWS: rows, **(more or {})}
    names: dict[str, str] = {}

    def make(note_id: ledger.NoteId) -> bytes | None:
        nonlocal names
        names = {what: table_name(what, note_id) for what in tables}
        # One that is there was left by an interruption, and may say something else.
        if not all(
            files.create_bytes(files.join(within, names[what]), data) for what, data in tables.items()
        ):
            return None
        record.tables = {names[what]: parquet.seal(data) for what, data in (more or {}).items()}
        return notes.seal_text(_json(record, names[ROWS], parquet.seal(rows)))

    ledger.add(within, token, make)
    record.rows, record.rows_seal = files.join(within, names[ROWS]), parquet.seal(rows)


def table_name(what: str, note_id: ledger.NoteId) -> str:
    """Name a table beside a record."""
    return f"{what}-{note_id[0]:08d}-{note_id[1]:06d}.parquet"


_TABLE_NAME = re.compile(r"[a-z]+-\d{8,}-\d{6,}\.parquet")


def is_table_name(name: str) -> bool:
    """Tell whether a file is called as the tables beside records are."""
    return bool(_TABLE_NAME.fullmatch(name))


def forget(folder: str, token: int) -> None:
    """Note that a generation is not finished any more, before its parts are made again all at once."""
    ledger.add(files.join(folder, FOLDER), token, lambda _: notes.dump({"forgotten": True, "stage": ""}))


def read_record(folder: str) -> StageRecord | None:
    """Read what is recorded of a generation; None if it was never finished. Raises DamageError."""
    uri = latest(folder)
    return read_record_at(uri, folder) if uri else None


def latest(folder: str) -> str | None:
    """Give the URI of the record of a generation that counts; None if it was never finished."""
    return ledger.latest(files.join(folder, FOLDER))


def read_record_at(uri: str, folder: str) -> StageRecord | None:
    """Read a record of a generation; None for a forgotten one. Raises DamageError."""
    with uncollected():
        return parse_record(notes.read(uri, "stage"), folder, uri)


def read_table(uri: str, record: StageRecord) -> pa.Table | None:
    """Read a table beside a record whole; None if it is gone. Raises DamageError for another one."""
    try:
        data = files.read_bytes(uri)
    except FileNotFoundError:
        return None
    if parquet.seal(data) != record.tables[uri.rpartition("/")[2]]:
        raise DamageError(f"{uri} is damaged; remove it and run again")
    return pq.read_table(pa.BufferReader(data))


def parse_record(found: dict[str, Any], folder: str, uri: str) -> StageRecord | None:
    """Make a record of its note, which lies at `uri`, and of the table beside it; None for a forgotten one.

    Raises:
        DamageError: The note or the table is not what it was when it was written.
    """
    try:
        if found.get("forgotten"):
            return None
        rows = files.join(folder, FOLDER, found.pop("rows"))
        data = files.read_bytes(rows)
        if parquet.seal(data) != found["rows_seal"]:
            raise ValueError(f"{rows} is damaged")
        tags, listed = found.pop("tags"), found.pop("parts")
        bits = {row["name"]: row for row in pq.read_table(pa.BufferReader(data)).to_pylist()}
        made = {one["name"]: _part(one, bits[one["name"]], tags) for one in listed}
        return StageRecord(**found, parts=made, rows=rows)
    except StoreError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())
        raise DamageError(f"{uri} is not the record of a stage ({why}); remove it and run again") from error


def read_came(folder: str) -> dict[str, int] | None:
    """Give the bitmap of the rows that came into each part of a generation, in order, as recorded.

    It is read from the table of the rows alone, a fraction of the record. None if the generation was never
    finished. Raises DamageError.
    """
    uri = table_uri(folder, ROWS)
    if uri is None:
        return None
    try:
        table = parquet.read_table(uri, ["name", "came"])
    except FileNotFoundError:
        record = read_record(folder)  # a forgotten one has no table
        return None if record is None else {name: part.came for name, part in record.parts.items()}
    bits = map(bitmaps.load, table["came"].to_pylist())
    return dict(zip(table["name"].to_pylist(), bits, strict=True))


def table_uri(folder: str, what: str) -> str | None:
    """Name a table beside the record of a generation that counts; None if there is no record."""
    within = files.join(folder, FOLDER)
    found = ledger.note_ids(within)
    return files.join(within, table_name(what, found[-1])) if found else None


def superseded(folder: str) -> Iterator[str]:
    """Name what lies among a generation's records and counts no more."""
    within = files.join(folder, FOLDER)
    uri = ledger.latest(within)
    found = notes.read(uri, "stage") if uri else {}
    named = tables_of(found)
    yield from ledger.superseded(within)
    yield from (files.join(within, n) for n in files.list_names(within, ".parquet") if n not in named)


def tables_of(found: Mapping[str, Any]) -> set[str]:
    """Name the tables that a note of a record, as it was read, names."""
    return {found.get("rows", ""), *found.get("tables", ())}


def read_json(uri: str, *keys: str) -> Any:
    """Read what the driver or a worker noted: an object with these keys, if any are named.

    Raises DamageError if it is not JSON, or is something else.
    """
    try:
        found = json.loads(files.read_bytes(uri))
        if keys and not (isinstance(found, dict) and found.keys() >= set(keys)):
            raise ValueError(f"it is not an object with {', '.join(keys)}")
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{uri} is damaged ({error}); remove it and run again") from error
    return found


def root_digest(records: Iterable[StageRecord]) -> str:
    """Digest the records of a run, as they were read, and by their seals all bytes that they speak of."""
    with uncollected():
        return list_digest(map(stored, records))


def stored(record: StageRecord) -> dict[str, Any]:
    """Give a record as it is stored, but for the name of its table: of that is the digest of the bytes."""
    return _head(record, "", record.rows_seal) | {"parts": list(map(_stored, record.parts.values()))}


@contextmanager
def uncollected() -> Iterator[None]:
    """Let Python not look for cycles meanwhile: there are none in records, and to look through all parts
    takes half of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def content_digest(records: Iterable[StageRecord]) -> str:
    """Digest what all stages of a run say; equal for equal runs."""
    with uncollected():
        return list_digest(record.content() for record in records)


def _tag_names(record: StageRecord) -> list[str]:
    return sorted({tag for part in record.parts.values() for tag in part.tags})


def _rows(record: StageRecord) -> pa.Table:
    ids = {tag: number for number, tag in enumerate(_tag_names(record))}
    rows = [
        {
            "name": part.name,
            "made_for": bitmaps.dump(part.made_for),
            "came": bitmaps.dump(part.came),
            "removed": bitmaps.dump(part.removed),
            "tags": bitmaps.dump(bitmaps.of(ids[tag] for tag in part.tags)),
        }
        for part in record.parts.values()
    ]
    return pa.Table.from_pylist(rows, ROWS_SCHEMA)


def _json(record: StageRecord, rows: str, seal: str) -> str:
    """Write a record as JSON, a line a part."""
    lines = (_dumped(_stored(part)) for part in record.parts.values())
    return _dumped(_head(record, rows, seal))[:-1] + ', "parts": [\n' + ",\n".join(lines) + "\n]}\n"


def _head(record: StageRecord, rows: str, seal: str) -> dict[str, Any]:
    """Give what a record stores as JSON, but for its parts."""
    apart = ("parts", "rows", "rows_seal", *(() if record.tables else ("tables",)))
    head = {name: value for name, value in vars(record).items() if name not in apart}
    return head | {"rows": rows, "rows_seal": seal, "tags": _tag_names(record)}


def _stored(part: PartRecord) -> dict[str, Any]:
    """Give what a record stores of a part as JSON; not a copy, which takes long of many parts."""
    return _without(vars(part), BITMAPS) | {"counts": vars(part.counts)}


def _dumped(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _part(values: dict[str, Any], bits: Mapping[str, bytes], tags: list[str]) -> PartRecord:
    counts = Counts(**values.pop("counts"))
    return PartRecord(
        **values,
        counts=counts,
        made_for=bitmaps.load(bits["made_for"]),
        came=bitmaps.load(bits["came"]),
        removed=bitmaps.load(bits["removed"]),
        tags=tuple(tags[number] for number in bitmaps.numbers(bitmaps.load(bits["tags"]))) if tags else (),
    )
