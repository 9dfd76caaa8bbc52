"""Parts: the unit of work, commit, retry and resume.

A part is one Parquet file that covers at most `part_size` examples of one source file. Every stage turns
the same-named parts of earlier stages into one part of its own. Ingest numbers the examples of a part by
`row`; later tables carry that `row`, ascending, and are joined by it alone.

The footer of the file holds a `Header`: what made the part, for which rows, and what happened to them. It
does not say which rows still live: a filter that is added or removed later changes that, and the part stays.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import row_digests, table_digest, value_digest
from tagmill.tag_system.core.errors import DamageError, DataError, Reason
from tagmill.tag_system.core.text import parse_json
from tagmill.transforms import bitmaps, image_copies, parquet

SUFFIX, ARRAY_SUFFIX = ".parquet", ".npy"
WHOLE = "whole"
"""What the digest of all of a part is called among those of its slices."""

Unit = Literal["example", "caption", "field"]
"""What a dead letter is of. What came in and went out is counted of examples and captions alone: a field,
such as a label, is lost from an example that lives on."""

DEAD_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("caption_index", pa.int32()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""The dead letters of one part of one stage, under `dead/` beside the parts."""


@dataclass(frozen=True)
class Dead:
    """One dead letter: an example, or a caption or a field of an example that lives on."""

    row: int
    key: str
    reason: Reason
    detail: str
    unit: Unit = "example"
    caption_index: int | None = None

    @classmethod
    def of(cls, row: int, key: str, error: DataError, caption_index: int | None = None) -> "Dead":
        """Make the dead letter of an example, or of its caption if an index is given."""
        unit: Unit = "example" if caption_index is None else "caption"
        return cls(row, key, error.reason, _detail(error), unit, caption_index)

    @classmethod
    def of_field(cls, row: int, key: str, error: DataError) -> "Dead":
        """Make the dead letter of a field of an example."""
        return cls(row, key, error.reason, _detail(error), "field")


def _detail(error: DataError) -> str:
    return error.detail[:500].encode(errors="backslashreplace").decode()  # names may not be UTF-8


@dataclass
class Output:
    """What a stage made of one part.

    Attributes:
        table: The rows, in the stage's schema.
        examples: How many examples came in.
        captions: How many captions came in, if the stage works on captions.
        captions_of: How many captions of each row came in, where some of them may die.
        dead: Dead letters.
        dropped: Rows that the stage removed on purpose, with the reason.
        seconds: Times, by what they were spent on.
        notes: What later planning needs without reading the table.
        array: Bytes of a file that is stored beside the part.
        copies: Images that are stored beside the part.
        slices: Tables with a column `row`, by name, that a later stage may depend on instead of the whole.
        tags: The tags that the table holds, if later stages depend on them.
    """

    table: pa.Table
    examples: int
    captions: int = 0
    dead: list[Dead] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    array: bytes | None = None
    copies: image_copies.Copies | None = None
    slices: dict[str, pa.Table] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    captions_of: dict[int, int] = field(default_factory=dict)

    def dead_rows(self, unit: Unit) -> dict[str, list[int]]:
        """List the rows of the dead examples or captions, by reason; one entry for each dead letter."""
        return _by_reason((d.row, d.reason) for d in self.dead if d.unit == unit)


def _by_reason(rows: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, reason in sorted(rows):
        found.setdefault(str(reason), []).append(row)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Counts:
    """How many examples and captions came into a stage and what happened to them, for one part or many.

    Attributes:
        examples: Examples that came in.
        captions: Captions that came in.
        dropped: Dropped examples, by reason.
        dead: Dead examples, by reason.
        dead_captions: Dead captions, by reason.
        captioned: Examples that had captions.
        caption_loss: The sum over them of the fraction of their captions that died.
    """

    examples: int
    captions: int
    dropped: dict[str, int]
    dead: dict[str, int]
    dead_captions: dict[str, int]
    captioned: int = 0
    caption_loss: float = 0.0

    def of(self, unit: Unit) -> dict[str, int]:
        """Give the counts in, out, dropped and dead of one unit; in = out + dropped + dead."""
        came = self.examples if unit == "example" else self.captions
        dropped = sum(self.dropped.values()) if unit == "example" else 0
        dead = sum((self.dead if unit == "example" else self.dead_captions).values())
        return {"in": came, "out": came - dropped - dead, "dropped": dropped, "dead": dead}

    def number(self, unit: Unit, what: str) -> int:
        """Give one of the counts of a unit, see `of`."""
        if what == "in":
            return self.examples if unit == "example" else self.captions
        return self.of(unit)[what]

    def weighed(self, captioned: int, caption_loss: float) -> "Counts":
        """Add how captions died by example."""
        return replace(self, captioned=captioned, caption_loss=caption_loss)


@dataclass(frozen=True)
class Header:
    """The header in a part's footer.

    Attributes:
        stage: The stage that made the part.
        version: The stage's version.
        name: The part's name.
        fingerprint: Hash of what made the part.
        spec: The stage's spec, see `Stage.spec`.
        digest: Hash of the content: the table, and the rows that were dropped or died.
        rows: Bitmap (see `bitmaps`) of the rows of the ingest part for which it was made.
        captions: How many captions came in.
        dropped: Rows that the stage dropped, by reason.
        dead: Rows of dead examples, by reason.
        dead_captions: Rows of dead captions, by reason.
        files: sha256 of the files beside the part, `dead`, `array` and `images`.
        slices: Digest of each slice that a later stage may depend on.
        by_row: Digests of the same slices for each row, see `digests.row_digests`.
        base: The fingerprint without the slices that the part depends on.
        read: Digests for each row of the slices that it was made from, by input. With `base` they tell
            whether the part can be used for some of its rows.
        tags: Tags that the table holds, if later stages depend on them.
        seconds: Times, by what they were spent on.
        notes: What later planning needs without reading the table.
        libraries: Versions of the libraries.
        captions_of: How many captions came in by row, where the stage says so.
        was: The digests of `WHOLE` and of the slices before rows were taken out of the part, if they were.
    """

    stage: str
    version: int
    name: str
    fingerprint: str
    spec: dict[str, Any]
    digest: str
    rows: int
    captions: int
    dropped: dict[str, list[int]]
    dead: dict[str, list[int]]
    dead_captions: dict[str, list[int]]
    files: dict[str, str]
    slices: dict[str, str]
    by_row: dict[str, str]
    base: str
    read: dict[str, str]
    tags: list[str]
    seconds: dict[str, float]
    notes: dict[str, Any]
    libraries: dict[str, str]
    captions_of: dict[int, int] = field(default_factory=dict)
    was: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Bitmap of the rows that this stage dropped or that died in it."""
        lost = [*self.dropped.values(), *self.dead.values()]
        return bitmaps.of(row for rows in lost for row in rows)

    def adds_up(self) -> bool:
        """Tell whether every lost row is one that came in, and was lost once."""
        lost = [row for rows in (*self.dropped.values(), *self.dead.values()) for row in rows]
        died = Counter(row for rows in self.dead_captions.values() for row in rows)
        if self.captions_of and any(count > self.captions_of.get(row, 0) for row, count in died.items()):
            return False
        captions = bitmaps.of(died)
        return len(set(lost)) == len(lost) and not (self.lost | captions) & ~self.rows

    @property
    def counts(self) -> Counts:
        """Count what came in and what became of it."""
        lost = [_lengths(rows) for rows in (self.dropped, self.dead, self.dead_captions)]
        return Counts(self.rows.bit_count(), self.captions, lost[0], lost[1], lost[2]).weighed(
            *self.caption_losses(self.rows)
        )

    def caption_losses(self, came: int) -> tuple[int, float]:
        """Give `captioned` and `caption_loss` of `Counts` for some of the rows, as a bitmap.

        Where the stage did not say whose captions came in, each of them counts as an example of its own.
        """
        died = Counter(row for rows in self.dead_captions.values() for row in rows if came >> row & 1)
        if not self.captions_of:
            return self.captions, float(died.total())
        captioned = sum(1 for row, count in self.captions_of.items() if count and came >> row & 1)
        return captioned, round(sum(died[row] / self.captions_of[row] for row in sorted(died)), 6)

    def to_json(self) -> dict[str, Any]:
        """Give the header as JSON values."""
        return {**asdict(self), "rows": bitmaps.dump(self.rows).hex()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None, uri: str) -> "Header":
        """Read the header from a Parquet footer. Raises DamageError if there is none."""
        if not metadata or parquet.METADATA_KEY not in metadata:
            raise DamageError(f"{uri} is not a part: its footer has no tagmill header")
        try:
            values = parse_json(metadata[parquet.METADATA_KEY])
            captions_of = {int(row): count for row, count in values.get("captions_of", {}).items()}
            rows = bitmaps.load(bytes.fromhex(values["rows"]))
            return cls(**{**values, "rows": rows, "captions_of": captions_of})
        except (TypeError, KeyError, ValueError) as error:
            raise DamageError(
                f"{uri} was not written by this version of tagmill; name another run folder"
            ) from error


def _lengths(rows: Mapping[str, Sequence[int]]) -> dict[str, int]:
    return {reason: len(found) for reason, found in rows.items()}


@dataclass(frozen=True)
class Part:
    """A part in memory, and where it lies."""

    header: Header
    table: pa.Table
    uri: str = ""

    @cached_property
    def spans(self) -> dict[int, tuple[int, int]]:
        """Where each row's records lie in the table: row -> (start, stop)."""
        rows = self.table.column("row").to_numpy()
        borders = np.append(np.flatnonzero(np.diff(rows, prepend=-1)), len(rows))
        return {int(rows[a]): (int(a), int(b)) for a, b in pairwise(borders)}

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The table as Python records."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        if self.uri and "image" in self.table.column_names:
            image_copies.resolve(found, self.uri)
        return found

    def of_row(self, row: int) -> list[dict[str, Any]]:
        """Give the records of one row; none if it has none."""
        start, stop = self.spans.get(row, (0, 0))
        return self.records[start:stop]

    def table_of_row(self, row: int) -> pa.Table:
        """Cut the rows of one row out of the table, without a copy; an empty table if it has none."""
        start, stop = self.spans.get(row, (0, 0))
        return self.table.slice(start, stop - start)


class Inputs:
    """The parts of one name of all of a stage's inputs, joined by `row`.

    Attributes:
        name: The name of the parts.
        rows: Living rows of the ingest part, ascending: all that earlier stages did not remove.
        examples: The ingest records of those rows.
        parts: The parts, by stage.
        tables: The inputs that are one table for all parts, by stage.
        root: Folder that the image references of the part are relative to.
        lost: Rows that nobody must look at, with what is wrong with each.
    """

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Part],
        tables: Mapping[str, pa.Table],
        root: str,
        removed: int = 0,
    ) -> None:
        self.name = name
        self.tables = dict(tables)
        self.root = root
        self.parts = dict(parts)
        self.examples = {
            record["row"]: record for record in parts["ingest"].records if not removed >> record["row"] & 1
        }
        self.rows: list[int] = sorted(self.examples)
        self.lost: dict[int, DataError] = {}

    def __contains__(self, stage: str) -> bool:
        return stage in self.parts

    def of_row(self, stage: str, row: int) -> list[dict[str, Any]]:
        """Give one row's records in the part of `stage`; none where that stage is switched off."""
        return self.parts[stage].of_row(row) if stage in self.parts else []

    def without_lost(self) -> "Inputs":
        """Give the same without the lost rows."""
        left = copy(self)
        left.examples = {row: one for row, one in self.examples.items() if row not in self.lost}
        left.rows = sorted(left.examples)
        return left

    def key(self, row: int) -> str:
        """Give the key of a row's example."""
        key: str = self.examples[row]["key"]
        return key


@dataclass(frozen=True)
class MadeBy:
    """What made a part; the fields are those of `Header`."""

    stage: str
    version: int
    name: str
    fingerprint: str
    spec: dict[str, Any]
    libraries: dict[str, str]
    base: str = ""
    read: dict[str, str] = field(default_factory=dict)


def part_uri(folder: str, name: str) -> str:
    """Name the file of a part in a generation's folder."""
    return files.join(folder, name + SUFFIX)


def dead_uri(folder: str, name: str) -> str:
    """Name the file of a part's dead letters in a generation's folder."""
    return files.join(folder, "dead", name + SUFFIX)


def array_uri(folder: str, name: str) -> str:
    """Name the file of what lies beside a part in a generation's folder."""
    return files.join(folder, name + ARRAY_SUFFIX)


def dead_table(stage: str, dead: Sequence[Dead]) -> pa.Table:
    """Make the table of dead letters, ordered by row and caption."""
    ordered = sorted(dead, key=lambda d: (d.row, -1 if d.caption_index is None else d.caption_index))
    records = [{**asdict(d), "stage": stage, "reason": str(d.reason)} for d in ordered]
    return pa.Table.from_pylist(records, DEAD_SCHEMA)


def commit(
    folder: str,
    made_by: MadeBy,
    output: Output,
    rows: Iterable[int],
) -> bool:
    """Write what lies beside a part, and then the part, which makes it valid.

    The driver removes what an interruption in between leaves before it starts another job.

    Args:
        folder: Folder of the stage's generation.
        made_by: What made the part.
        output: What the stage gave.
        rows: Rows of the ingest part that it was made for.

    Returns:
        False if another worker had committed the part already; that one stays.
    """
    beside: dict[str, str] = {}
    if output.dead:
        data = parquet.table_bytes(dead_table(made_by.stage, output.dead))
        beside["dead"] = hashlib.sha256(data).hexdigest()
        files.create_bytes(dead_uri(folder, made_by.name), data)
    if output.array is not None:
        beside["array"] = hashlib.sha256(output.array).hexdigest()
        files.create_bytes(array_uri(folder, made_by.name), output.array)
    if output.copies is not None and (digest := output.copies.commit()):
        beside["images"] = digest
    header = make_header(made_by, output, rows, beside)
    data = parquet.table_bytes(output.table, header.to_json())
    return files.create_bytes(part_uri(folder, made_by.name), data)


def make_header(
    made_by: MadeBy, output: Output, rows: Iterable[int], beside: Mapping[str, str] | None = None
) -> Header:
    """Describe a part that is about to be committed. Raises ValueError if it lost rows that it never had."""
    dropped = _by_reason(output.dropped.items())
    dead, dead_captions = output.dead_rows("example"), output.dead_rows("caption")
    header = Header(
        **vars(made_by),
        digest=part_digest(output.table, dropped, dead, dead_captions),
        rows=bitmaps.of(rows),
        captions=output.captions,
        dropped=dropped,
        dead=dead,
        dead_captions=dead_captions,
        files=dict(beside or {}),
        slices={name: table_digest(table) for name, table in output.slices.items()},
        by_row={name: row_digests(table) for name, table in output.slices.items()},
        tags=output.tags,
        seconds={key: round(value, 4) for key, value in output.seconds.items()},
        notes=output.notes,
        captions_of=output.captions_of,
    )
    if output.examples != header.rows.bit_count():
        raise ValueError(f"{made_by.stage}/{made_by.name}: counted {output.examples} examples of other rows")
    if not header.adds_up():
        raise ValueError(f"{made_by.stage}/{made_by.name}: lost a row twice, or one that did not come in")
    return header


def part_digest(
    table: pa.Table,
    dropped: Mapping[str, list[int]],
    dead: Mapping[str, list[int]],
    dead_captions: Mapping[str, list[int]],
) -> str:
    """Hash the content of a part: its table, and the rows of what was lost, by reason."""
    return value_digest([table_digest(table), dropped, dead, dead_captions])


@dataclass(frozen=True)
class Footer:
    """The end of a part's file: its header, the seal (hash) of all its bytes, and their number."""

    header: Header
    seal: str
    size: int


def read_footer(uri: str) -> Footer:
    """Read the footer of a part alone. Raises as `read_tail`, and DamageError for what is not a part."""
    tail = parquet.read_tail(uri)
    return Footer(Header.from_metadata(tail.metadata, uri), tail.seal, tail.size)


def read_header(uri: str) -> Header:
    """Read a part's header from its footer alone."""
    return read_footer(uri).header


def read_part(uri: str, columns: Sequence[str] | None = None) -> Part:
    """Read a part, whole or some of its columns."""
    table = parquet.read_table(uri, columns)
    return Part(Header.from_metadata(table.schema.metadata, uri), table, uri)
