"""Parts: the unit of work, commit, retry and resume.

A part is one Parquet file that covers at most `part_size` examples of one source file. Every stage turns
the same-named parts of earlier stages into one part of its own. Ingest numbers the examples of a part by
`row`; later tables carry that `row`, ascending, and are joined by it alone.

The footer of the file holds a `Header`: what made the part, what went in and out, and which rows are gone.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.errors import DamageError, DataError, Reason
from tagmill.transforms import files
from tagmill.transforms.digests import table_digest, value_digest

SUFFIX, ARRAY_SUFFIX = ".parquet", ".npy"
METADATA_KEY = contract.METADATA_KEY

Unit = Literal["example", "caption"]

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
    """One dead letter: an example, or one caption of an example that lives on."""

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
        detail = error.detail[:500].encode(errors="backslashreplace").decode()  # names may be no UTF-8
        return cls(row, key, error.reason, detail, unit, caption_index)


@dataclass
class Output:
    """What a stage made of one part.

    `table` has the stage's schema; `captions` counts the captions that came in, where the stage works on
    captions; `dropped` holds rows that the stage took out on purpose (row -> reason); `seconds` are times
    by what they were spent on; `notes` is what later planning needs to know without reading the table;
    `array` the bytes of a file that lies beside the part.
    """

    table: pa.Table
    examples: int
    captions: int = 0
    dead: list[Dead] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    array: bytes | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        """Count by unit what came in, went out, was dropped and died: in = out + dropped + dead."""
        dead = {unit: sum(d.unit == unit for d in self.dead) for unit in ("example", "caption")}
        return {
            "example": {
                "in": self.examples,
                "out": self.examples - len(self.dropped) - dead["example"],
                "dropped": len(self.dropped),
                "dead": dead["example"],
            },
            "caption": {
                "in": self.captions,
                "out": self.captions - dead["caption"],
                "dropped": 0,
                "dead": dead["caption"],
            },
        }

    def reasons(self) -> dict[str, int]:
        """Count the dead letters by unit and reason, as `caption/caption_empty`."""
        return _tally(f"{d.unit}/{d.reason}" for d in self.dead)


def _tally(values: Iterable[str]) -> dict[str, int]:
    tally: dict[str, int] = {}
    for value in values:
        tally[value] = tally.get(value, 0) + 1
    return dict(sorted(tally.items()))


@dataclass(frozen=True)
class Header:
    """What a part's footer says of it.

    `fingerprint` says what made it, `digest` what it says: its table and which rows are gone. `gone` are the
    rows of the ingest part that no longer live after this stage.
    """

    stage: str
    version: int
    name: str
    fingerprint: str
    meaning: dict[str, Any]
    digest: str
    counts: dict[str, dict[str, int]]
    dead: dict[str, int]
    dropped: dict[str, int]
    gone: list[int]
    seconds: dict[str, float]
    notes: dict[str, Any]
    libraries: dict[str, str]

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None, uri: str) -> "Header":
        """Read the header from a Parquet footer. Raises DamageError if there is none."""
        if not metadata or METADATA_KEY not in metadata:
            raise DamageError(f"{uri} is not a part: its footer has no tagmill header")
        return cls(**json.loads(metadata[METADATA_KEY]))


@dataclass(frozen=True)
class Part:
    """A part in memory."""

    header: Header
    table: pa.Table

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
        return found

    def of_row(self, row: int) -> list[dict[str, Any]]:
        """Give the records of one row; none if it has none."""
        start, stop = self.spans.get(row, (0, 0))
        return self.records[start:stop]


class Inputs:
    """The same-named parts of a stage's inputs, joined by `row`.

    `rows` are the rows of the ingest part that live in every input, ascending; `tables` the inputs that are
    one table for all parts. `root` is where the image references of the part resolve.
    """

    def __init__(
        self, name: str, parts: Mapping[str, Part], tables: Mapping[str, pa.Table], root: str
    ) -> None:
        self.name = name
        self.tables = dict(tables)
        self.root = root
        self.parts = dict(parts)
        gone = set().union(*(part.header.gone for part in parts.values()))
        self.examples = {
            record["row"]: record for record in parts["ingest"].records if record["row"] not in gone
        }
        self.rows: list[int] = sorted(self.examples)
        self.total_rows: int = parts["ingest"].header.counts["example"]["in"]

    def __contains__(self, stage: str) -> bool:
        return stage in self.parts

    def of_row(self, stage: str, row: int) -> list[dict[str, Any]]:
        """Give one row's records in the part of `stage`; none where that stage is switched off."""
        return self.parts[stage].of_row(row) if stage in self.parts else []

    def key(self, row: int) -> str:
        """Give the key of a row's example."""
        key: str = self.examples[row]["key"]
        return key

    def gone_after(self, output: Output) -> list[int]:
        """List the rows of the ingest part that do not live after `output`."""
        lost = {d.row for d in output.dead if d.unit == "example"} | set(output.dropped)
        return sorted(set(range(self.total_rows)) - (set(self.rows) - lost))


def part_uri(folder: str, name: str) -> str:
    """Name the file of a part in a generation's folder."""
    return files.join(folder, name + SUFFIX)


def dead_uri(folder: str, name: str) -> str:
    """Name the file of a part's dead letters in a generation's folder."""
    return files.join(folder, "dead", name + SUFFIX)


def array_uri(folder: str, name: str) -> str:
    """Name the file of what lies beside a part in a generation's folder."""
    return files.join(folder, name + ARRAY_SUFFIX)


def table_bytes(table: pa.Table, header: Mapping[str, Any] | None = None) -> bytes:
    """Write a table as Parquet (zstd), with the header in its footer."""
    if header is not None:
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(header)})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def dead_table(stage: str, dead: Sequence[Dead]) -> pa.Table:
    """Make the table of dead letters, ordered by row and caption."""
    ordered = sorted(dead, key=lambda d: (d.row, -1 if d.caption_index is None else d.caption_index))
    records = [{**asdict(d), "stage": stage, "reason": str(d.reason)} for d in ordered]
    return pa.Table.from_pylist(records, DEAD_SCHEMA)


def commit(folder: str, header: Header, output: Output) -> bool:
    """Write a part, its dead letters and its array; the part comes last and makes them count.

    The driver moves away what an interruption between the two left, before it starts another job.
    Returns False if another worker had committed the part already: the first one stays.
    """
    if output.dead:
        data = table_bytes(dead_table(header.stage, output.dead))
        files.create_bytes(dead_uri(folder, header.name), data)
    if output.array is not None:
        files.create_bytes(array_uri(folder, header.name), output.array)
    data = table_bytes(output.table, asdict(header))
    return files.create_bytes(part_uri(folder, header.name), data)


def make_header(
    stage: str,
    version: int,
    name: str,
    fingerprint: str,
    meaning: Mapping[str, Any],
    output: Output,
    gone: Sequence[int],
    libraries: Mapping[str, str],
) -> Header:
    """Describe a part that is about to be committed."""
    return Header(
        stage=stage,
        version=version,
        name=name,
        fingerprint=fingerprint,
        meaning=dict(meaning),
        digest=value_digest([table_digest(output.table), list(gone)]),
        counts=output.counts(),
        dead=output.reasons(),
        dropped=_tally(output.dropped.values()),
        gone=list(gone),
        seconds={key: round(value, 4) for key, value in output.seconds.items()},
        notes=output.notes,
        libraries=dict(libraries),
    )


def read_header(uri: str) -> Header:
    """Read a part's header from its footer alone."""
    with files.open_read(uri) as stream:
        return Header.from_metadata(pq.read_schema(stream).metadata, uri)


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, whole or some of its columns."""
    with files.open_read(uri) as stream:
        return pq.read_table(stream, columns=list(columns) if columns else None)


def read_part(uri: str, columns: Sequence[str] | None = None) -> Part:
    """Read a part, whole or some of its columns."""
    table = read_table(uri, columns)
    return Part(Header.from_metadata(table.schema.metadata, uri), table)
