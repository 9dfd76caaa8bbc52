"""The Parquet files of a run: tables with a JSON header, and a seal (hash) of all bytes in the footer."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError
from tagmill.tag_system.core.text import one_line

METADATA_KEY = contract.METADATA_KEY
BODY_KEY = b"tagmill_body"
"""Under which a footer holds the sha256 of the bytes before it."""

TAIL_BYTES = 1 << 16
"""Read of a file to find its footer; most footers are smaller."""


def table_bytes(
    table: pa.Table,
    header: Mapping[str, Any] | None = None,
    *,
    group: int | None = None,
    encoding: Mapping[str, str] | None = None,
) -> bytes:
    """Write a table as Parquet (zstd), with the header in its footer, and there the sha256 of all before it.

    So a look at the footer is enough to know what the whole file must be; see `seal`. `group` is the number
    of rows that can be read apart from the others, `encoding` Parquet's encoding of columns.
    """
    if header is not None:
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(header)})
    sink = io.BytesIO()
    # With checksums, whoever reads a damaged page learns of it.
    options: dict[str, Any] = {"column_encoding": dict(encoding), "use_dictionary": False} if encoding else {}
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True, **options
    ) as writer:
        writer.write_table(table, row_group_size=group)
        writer.add_key_value_metadata({BODY_KEY: hashlib.sha256(sink.getvalue()).hexdigest()})
    return sink.getvalue()


@dataclass(frozen=True)
class Tail:
    """The end of a run's Parquet file: its metadata, the seal of all its bytes, and their number."""

    metadata: dict[bytes, bytes]
    seal: str
    size: int


def read_tail(uri: str) -> Tail:
    """Read the footer of a file alone. Raises FileNotFoundError, and ValueError for a damaged file."""
    size, tail = files.read_tail(uri, TAIL_BYTES)
    length = _footer_length(tail)
    if length > len(tail):
        size, tail = files.read_tail(uri, length)
    whole = pa.BufferReader(tail)
    try:
        body = (pq.read_metadata(whole).metadata or {}).get(BODY_KEY, b"").decode()
        metadata = pq.read_schema(whole).metadata or {}
    except (OSError, pa.ArrowException) as error:  # the bytes were read: nothing is wrong but what they say
        raise ValueError(f"its footer cannot be read: {one_line(str(error))}") from error
    return Tail(metadata, _seal(body, tail[-length:]), size)


def seal(data: bytes) -> str:
    """Compute the seal of a Parquet file's bytes, all of them: what `read_tail` must give for it."""
    length = _footer_length(data)
    return _seal(hashlib.sha256(data[:-length]).hexdigest(), data[-length:])


def file_seal(uri: str, size: int) -> str:
    """Compute the seal of a file of a known size; of a large one, a range at a time is in memory.

    Raises FileNotFoundError, and ValueError for what is no Parquet file.
    """
    if size <= files.RANGE_BYTES:
        return seal(files.read_bytes(uri))
    length = _footer_length(files.read_range(uri, size - 8, size))
    if length > size:
        raise ValueError("its footer is longer than the file")
    body = hashlib.sha256()
    for data in files.read_ranges(uri, size - length):
        body.update(data)
    return _seal(body.hexdigest(), files.read_range(uri, size - length, size))


def _seal(body: str, footer: bytes) -> str:
    return hashlib.sha256(body.encode() + footer).hexdigest()


def _footer_length(data: bytes) -> int:
    """Tell how many bytes the footer takes, its length and the closing mark included."""
    if data[-4:] != b"PAR1":
        raise ValueError("it does not end like a Parquet file")
    return int.from_bytes(data[-8:-4], "little") + 8


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, whole or some of its columns.

    Raises:
        DamageError: Its bytes are not those that were written.
    """
    with files.open_read(uri) as stream, _told_of(uri):
        if columns:
            return pq.read_table(stream, columns=list(columns), page_checksum_verification=True)
        # Without the detour over a dataset, which takes longer than a small part's rows.
        return pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=True).read()


@contextmanager
def opened(uri: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, to read some of its groups of rows. Raises as `read_table`, within too."""
    with files.open_read(uri) as stream, _told_of(uri):
        yield pq.ParquetFile(stream, page_checksum_verification=True)


@contextmanager
def _told_of(uri: str) -> Iterator[None]:
    """Raise DamageError for what a library says of a file whose bytes are not those that were written."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        if getattr(error, "errno", None):  # nothing is known of the bytes
            raise
        raise DamageError(f"{uri} is damaged ({one_line(str(error))}); remove it and run again") from error
