"""Which parts hold a key: a table beside the record of ingest, so that one is found without opening them all.

RUN/ingest/<gen>/records/keys-<token>-<n>.parquet  a row a key and part, ordered by the key's hash

Hashes are short, so another key may have the same one: the parts that are named have to be looked into.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tagmill.pipeline import records
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.tag_system.core import files
from tagmill.transforms import parquet, parts

TABLE = "keys"

SCHEMA = pa.schema(
    [
        pa.field("hash", pa.uint32(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
    ]
)
"""`part` counts the parts in the order of the record."""

GROUP = 1 << 16
"""Rows of a group of the table, which is read at once."""

Entries = NDArray[np.uint64]
"""Hash and part of each key in one number, the hash above the part: ordered by hash."""


def key_hash(key: str) -> int:
    """Hash a key: 32 bits."""
    return int.from_bytes(hashlib.blake2b(key.encode(errors="backslashreplace"), digest_size=4).digest())


def living_keys(folder: str, name: str) -> dict[str, int]:
    """Read the rows of a part's living examples, by key; `folder` is of ingest's generation."""
    found = parquet.read_table(parts.part_uri(folder, name), ["key", "row"]).to_pydict()
    return dict(zip(found["key"], found["row"], strict=True))


def dead_keys(folder: str, name: str) -> dict[str, int]:
    """Read the rows of a part's dead examples, by key; none if it has no dead letters."""
    try:
        letters = parquet.read_table(parts.dead_uri(folder, name), ["key", "row", "unit"]).to_pylist()
    except FileNotFoundError:
        return {}
    return {letter["key"]: letter["row"] for letter in letters if letter["unit"] == "example"}


def make(folder: str, found: Mapping[str, PartRecord], before: StageRecord | None) -> bytes:
    """Make the table for the parts of ingest; what the table of an earlier record knows is not read again."""
    entries, left = _kept(found, before)
    numbers = {name: number for number, name in enumerate(found)}

    def read(name: str) -> Entries:
        dead = dead_keys(folder, name) if "dead" in found[name].beside else {}
        hashes = {key_hash(key) for some in (living_keys(folder, name), dead) for key in some}
        return _entries(np.fromiter(hashes, np.uint32, len(hashes)), numbers[name])

    with ThreadPoolExecutor(files.THREADS) as pool:
        every = np.sort(np.concatenate([entries, *pool.map(read, left)]))
    hashes = (every >> np.uint64(32)).astype(np.uint32)
    table = pa.table([hashes, (every & np.uint64(0xFFFFFFFF)).astype(np.int32)], schema=SCHEMA)
    # Ordered numbers are small as differences: about three bytes a key in all.
    encoding = {"hash": "DELTA_BINARY_PACKED", "part": "PLAIN"}
    return parquet.table_bytes(table, group=GROUP, encoding=encoding)


def _entries(hashes: NDArray[np.uint32], part: int | NDArray[np.int64]) -> Entries:
    return hashes.astype(np.uint64) << np.uint64(32) | np.asarray(part, np.uint64)


def _kept(found: Mapping[str, PartRecord], before: StageRecord | None) -> tuple[Entries, list[str]]:
    """Take over what an earlier table says of parts that are as they were; names the others."""
    uri = before.table(TABLE) if before else None
    table = records.read_table(uri, before) if before and uri else None
    if table is None or before is None:
        return np.zeros(0, np.uint64), list(found)
    numbers = {name: number for number, name in enumerate(found) if _is_same(found[name], before.parts)}
    now = np.array([numbers.get(name, -1) for name in before.parts], np.int64)
    part = now[table["part"].to_numpy()]
    entries = _entries(table["hash"].to_numpy()[part >= 0], part[part >= 0])
    return entries, [name for name in found if name not in numbers]


def _is_same(part: PartRecord, before: Mapping[str, PartRecord]) -> bool:
    known = before.get(part.name)
    return known is not None and (known.digest, known.beside) == (part.digest, part.beside)


def look_up(uri: str, key: str) -> list[int]:
    """Give the numbers of the parts that may hold a key, ascending, from the table at `uri`.

    Raises FileNotFoundError, and DamageError for what is not that table.
    """
    wanted = key_hash(key)
    with parquet.opened(uri) as table:
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
        bounds = [group.column(0).statistics for group in groups]
        near = [number for number, bound in enumerate(bounds) if bound.min <= wanted <= bound.max]
        rows = table.read_row_groups(near) if near else SCHEMA.empty_table()
    found: list[int] = rows["part"].to_numpy()[rows["hash"].to_numpy() == wanted].tolist()
    return sorted(found)
