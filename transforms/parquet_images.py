"""Images in the row groups of Parquet files: where one is, and how those of a group are read together."""

from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

KIND = "parquet:"
"""How the kind of a reference begins that is one of these; the name of the column follows."""

BUFFER_BYTES = 1 << 20
"""Read of a file at a time."""

DAMAGE = (OSError, pa.ArrowException)
"""What pyarrow raises of damaged files."""

_ROWS = 1 << 32


def reference(uri: str, column: str, group: int, row: int, size: int) -> dict[str, Any]:
    """Say where an image is: the file, its column, its row group, its row in that, and its size in bytes."""
    return {"kind": KIND + column, "uri": uri, "offset": group * _ROWS + row, "size": size}


def opened(stream: IO[bytes]) -> pq.ParquetFile:
    """Open a Parquet file so that no more of it is held than what is read. Raises `DAMAGE`."""
    return pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)


def bytes_of(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Give the bytes in a column of images, which may be structs of bytes and a path."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


class GroupReader:
    """Reads images by their references, in order; of each row group, the column of images is read once."""

    def __init__(self, stream: IO[bytes], column: str) -> None:
        self._file = opened(stream)
        self._column = column
        self._group = -1
        self._images: Any = None

    def read(self, place: dict[str, Any]) -> bytes:
        """Read one image; empty if there is none. Raises `DAMAGE`, IndexError, KeyError."""
        group, row = divmod(place["offset"], _ROWS)
        if group != self._group:
            self._images = None  # before the next is read
            if group >= self._file.num_row_groups:
                raise IndexError(f"no row group {group}")
            table = self._file.read_row_group(group, columns=[self._column], use_threads=False)
            self._images = bytes_of(table.column(self._column))
            self._group = group
        return self._images[row].as_py() or b""
