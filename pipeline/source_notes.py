"""What workers noted of the sources that they read to the end, without opening a note a second time.

RUN/ingest/<gen>/sources/<source>.json              a note, see `sources.RECORD`
RUN/ingest/<gen>/records/sources-<token>-<n>.parquet  the bytes of all notes, beside the stage's record

Bytes that are known stand for a note as long as its file has the same size and stamp.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from tagmill.pipeline import records
from tagmill.pipeline.records import StageRecord
from tagmill.tag_system.core import files
from tagmill.transforms import parquet
from tagmill.transforms.ingest import source_record_uri

TABLE = "sources"

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("stamp", pa.string(), nullable=False),
        pa.field("note", pa.binary(), nullable=False),
    ]
)
"""A row a source: size and stamp of its note's file, and the note's bytes."""


class SourceNotes:
    """The notes in a generation's folder, of which the generation's record may know the bytes."""

    def __init__(self, folder: str, record: StageRecord | None = None) -> None:
        self.folder = folder
        self._known: dict[str, tuple[tuple[int, str], bytes]] = {}
        uri = record.table(TABLE) if record else None
        table = records.read_table(uri, record) if record and uri else None
        for row in table.to_pylist() if table else ():
            self._known[row["name"]] = (row["size"], row["stamp"]), row["note"]

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Give the bytes of the notes that are there, in the order of the names."""
        there = files.list_stamps(files.join(self.folder, "sources"))
        found = {name: there[f"{name}.json"] for name in names if f"{name}.json" in there}
        new = [name for name, about in found.items() if self._known.get(name, (None,))[0] != about]
        with ThreadPoolExecutor(files.THREADS) as pool:
            read = pool.map(files.read_bytes, (source_record_uri(self.folder, name) for name in new))
            self._known |= {name: (found[name], data) for name, data in zip(new, read, strict=True)}
        return {name: self._known[name][1] for name in found}

    def replace(self, name: str, data: bytes) -> None:
        """Write a note over what is there."""
        self._known.pop(name, None)
        files.replace_bytes(source_record_uri(self.folder, name), data)

    def table(self, names: Iterable[str]) -> bytes:
        """Make the table beside the record."""
        read = self.read(names)
        rows = [
            {"name": name, "size": self._known[name][0][0], "stamp": self._known[name][0][1], "note": data}
            for name, data in read.items()
        ]
        return parquet.table_bytes(pa.Table.from_pylist(rows, SCHEMA))
