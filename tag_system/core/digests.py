"""Digests of what data means: of tables by their logical rows, of values by their canonical JSON."""

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROW_BYTES = 6


def value_digest(value: Any) -> str:
    """Hash a JSON value, whatever the order of its keys: sha256, hexadecimal."""
    return hashlib.sha256(_canonical(value)).hexdigest()


class ListDigest:
    """Hashes a list of JSON values as `value_digest` does, of which one is in memory at a time."""

    def __init__(self) -> None:
        self._state = hashlib.sha256(b"[")
        self._is_empty = True

    def add(self, value: Any) -> None:
        """Take the next value of the list."""
        self._state.update(b"" if self._is_empty else b",")
        self._state.update(_canonical(value))
        self._is_empty = False

    def hexdigest(self) -> str:
        """Give the digest of the list up to here."""
        whole = self._state.copy()
        whole.update(b"]")
        return whole.hexdigest()


def list_digest(values: Iterable[Any]) -> str:
    """Hash a list of JSON values as `ListDigest` does."""
    digest = ListDigest()
    for value in values:
        digest.add(value)
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def table_digest(table: pa.Table) -> str:
    """Hash a table's schema and rows: sha256, hexadecimal.

    Equal for equal rows, whatever the order of the columns, the chunks, the file format or the version
    of the writer; rows count in their order.
    """
    state = hashlib.sha256(str(table.num_rows).encode())
    for name in sorted(table.column_names):
        column = table.column(name).combine_chunks()
        state.update(name.encode())
        _update(state, column)
    return state.hexdigest()


def row_digests(table: pa.Table) -> str:
    """Hash what a table says of each row of its column `row`: base64 of 6 bytes a row, zeros where nothing.

    For comparing some rows of two tables; two that differ are taken for equal once in 3e14 cases.
    """
    found: dict[int, Any] = {}
    for record in table.to_pylist():
        state = found.setdefault(record.pop("row"), hashlib.blake2b(digest_size=ROW_BYTES))
        state.update(json.dumps(record, sort_keys=True).encode())
    digests = bytearray(ROW_BYTES * (max(found, default=-1) + 1))
    for row, state in found.items():
        digests[ROW_BYTES * row : ROW_BYTES * (row + 1)] = state.digest()
    return base64.b64encode(digests).decode()


def without_rows(digests: str, rows: Iterable[int]) -> str:
    """Take some rows out of a result of `row_digests`."""
    left = bytearray(base64.b64decode(digests))
    for row in rows:
        if ROW_BYTES * row < len(left):
            left[ROW_BYTES * row : ROW_BYTES * (row + 1)] = bytes(ROW_BYTES)
    return base64.b64encode(left.rstrip(b"\0")).decode()


def equal_rows(one: str, other: str, rows: Iterable[int]) -> bool:
    """Tell whether two results of `row_digests` agree in all of these rows."""
    a, b = base64.b64decode(one), base64.b64decode(other)
    return all(_digest_at(a, row) == _digest_at(b, row) for row in rows)


def _digest_at(digests: bytes, row: int) -> bytes:
    return digests[ROW_BYTES * row : ROW_BYTES * (row + 1)].ljust(ROW_BYTES, b"\0")


def _update(state: Any, array: pa.Array) -> None:
    """Feed one array to the hash: type, validity, lengths, values; recursively."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type):
        array = array.cast(pa.string() if pa.types.is_large_string(array.type) else pa.binary())
    # Parquet renames the item field of lists, so nested types are fed by their structure, not as text.
    label = "nested" if pa.types.is_nested(array.type) else str(array.type)
    state.update(f"{label}:{len(array)}".encode())
    state.update(np.packbits(pc.is_valid(array).to_numpy(zero_copy_only=False)).tobytes())
    kind = array.type
    if pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            state.update(kind.field(index).name.encode())
            _update(state, pc.struct_field(array, index))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        state.update(_zero_filled(pc.list_value_length(array)).astype(np.int64).tobytes())
        _update(state, array.flatten())
    elif pa.types.is_fixed_size_list(kind):
        _update(state, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        state.update(_zero_filled(pc.binary_length(array)).astype(np.int64).tobytes())
        for value in array.drop_null():
            state.update(value.as_buffer())
    else:
        values = np.ascontiguousarray(_zero_filled(array))
        if values.dtype.hasobject:
            raise TypeError(f"no digest for values of type {kind}")
        state.update(values.tobytes())


def _zero_filled(array: pa.Array) -> np.ndarray:
    if array.null_count:
        array = pc.fill_null(array, pa.scalar(0).cast(array.type))
    return array.to_numpy(zero_copy_only=False)
