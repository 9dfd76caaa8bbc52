"""Reads Parquet tables with an image a row: its bytes, or the path of its file.

Hugging Face's datasets (a struct of bytes and path), img2dataset's Parquet (`jpg`), and tables beside a
folder of images, such as LAION's metadata. Columns are found file by file: shards may lack some. A row group
is read a few rows at a time; one whose images take more than the option `copy_over` bytes has them copied
into the run, for no stage could read one of them without all.

The key is the column `key` or `__key__`, else the path of an image file, else file and number of the row.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError, Reason
from tagmill.transforms import image_copies, parquet_images
from tagmill.transforms.formats.base import (
    IMAGE_EXTENSIONS,
    InputConfig,
    Limits,
    Record,
    Source,
    SourceExample,
)
from tagmill.transforms.formats.columns import class_names, from_arrow, labelled
from tagmill.transforms.formats.fields import IMAGES, caption_names, captions_of, no_image
from tagmill.transforms.formats.file_format import FileFormat
from tagmill.transforms.formats.image_files import check_path, key_of, loader
from tagmill.transforms.formats.streams import HashingStream
from tagmill.transforms.formats.url_lists import URLS, url_list_error

COPY_OVER = 256 << 20
"""Bytes of images in a row group, unpacked, up to which a pixel stage reads it whole."""

BATCH_BYTES = 8 << 20
"""Rows of about so many bytes are held at a time."""

BATCH_ROWS = 512

KEYS = ("key", "__key__")

_PATH_BYTES = 1 << 16


class ParquetTable(FileFormat):
    """The format `parquet`."""

    images_apart = True
    pattern = "*.parquet"
    version = 2

    def __init__(self, copy_over: int = COPY_OVER) -> None:
        if copy_over < 0:
            raise ValueError(f"copy_over is a number of bytes, got {copy_over}")
        self._copy_over = copy_over

    def copied_bytes(self, uri: str) -> int:
        """Add up the images of large row groups; see `CopyingFormat`."""
        with files.open_read(uri) as stream:
            try:
                table = parquet_images.opened(stream)
            except parquet_images.DAMAGE:
                return 0
            sizes = [
                max(_leaf_sizes(table.metadata.row_group(group)).values(), default=0)
                for group in range(table.num_row_groups)
            ]
        return sum(size for size in sizes if size > self._copy_over)

    def read(
        self, stream: HashingStream, source: Source, config: InputConfig, limits: Limits
    ) -> Iterator[SourceExample]:
        """Give the examples of a file, a row each; see `Format`.

        A file that is damaged after its beginning gives one more example, dead, whose key ends in `#end`.
        Raises ConfigError for a file of another format, and for one without a column of images.
        """
        stream.read(0)  # raises of a source that nothing can be read of, such as a pipe
        with files.open_read(source.uri) as raw:
            try:
                table = parquet_images.opened(raw)
            except parquet_images.DAMAGE as error:
                raise _no_parquet(error, source, config) from error
            columns = _columns(table, source, config)
            number = 0
            try:
                for group in range(table.num_row_groups):
                    copy = columns.image_bytes(table, group) > self._copy_over
                    first = 0
                    for batch in _batches(table, group, columns):
                        rows = _BatchRows(batch, columns, group, first, number, copy=copy)
                        yield from rows.examples(source, config, limits)
                        first += batch.num_rows
                        number += batch.num_rows
            except parquet_images.DAMAGE as error:
                if getattr(error, "errno", None):  # of the disk or the connection
                    raise
                detail = f"{source.path} is cut or damaged behind row {number}: {error}"
                yield SourceExample.failing(f"{source.path}#end", Reason.SOURCE_TRUNCATED, detail)


def _no_parquet(error: Exception, source: Source, config: InputConfig) -> Exception:
    """Make the error of a file that cannot be opened: another format, or a damaged one."""
    if getattr(error, "errno", None):  # of the disk or the connection
        return error
    if files.read_start(source.uri, 4) == b"PAR1":
        return DataError(Reason.SOURCE_UNREADABLE, f"{source.path} is cut or damaged: {error}")
    return ConfigError(
        f"input {config.name}: {source.uri} is not Parquet; see docs/inputs.md for the formats of other files"
    )


@dataclass(frozen=True)
class _TableColumns:
    """The columns of a file that are read: the one of images, and how the others become JSON values."""

    image: str
    is_bytes: bool
    convert: Mapping[str, Callable[[Any], Any]]
    labels: str | None

    def image_bytes(self, table: pq.ParquetFile, group: int) -> int:
        """Tell how many bytes the images of a row group take; 0 if it holds paths alone."""
        if not self.is_bytes:
            return 0
        sizes = _leaf_sizes(table.metadata.row_group(group))
        return sum(size for path, size in sizes.items() if path.split(".")[0] == self.image)


def _leaf_sizes(group: Any) -> dict[str, int]:
    chunks = (group.column(number) for number in range(group.num_columns))
    return {
        chunk.path_in_schema: max(chunk.total_uncompressed_size, chunk.total_compressed_size)
        for chunk in chunks
    }


def _columns(table: pq.ParquetFile, source: Source, config: InputConfig) -> _TableColumns:
    """Find the columns of a file. Raises ConfigError if none holds images."""
    schema = table.schema_arrow
    image = _image_column(schema, source, config)
    is_bytes = _is_bytes(schema.field(image).type)
    if is_bytes and config.images:
        raise ConfigError(
            f"input {config.name}: the column `{image}` of {source.uri} holds the bytes of its images; "
            "take `images` out of the input, or name the column of paths with `image`"
        )
    classes = class_names(schema)
    others = (field for field in schema if field.name != image and not _holds_bytes(field.type))
    convert = {field.name: from_arrow(field.type, classes.get(field.name)) for field in others}
    labels = config.labels
    if labels == "labels" and labels not in convert and "label" in classes:
        labels = "label"
    return _TableColumns(image, is_bytes, convert, labels)


def _image_column(schema: pa.Schema, source: Source, config: InputConfig) -> str:
    names: list[str] = schema.names
    if config.image is not None:
        found = next((name for name in config.image if name in names), None)
    else:
        usual = [name for name in (*IMAGES, *sorted(IMAGE_EXTENSIONS)) if name in names]
        with_bytes = [name for name in names if _is_bytes(schema.field(name).type)]
        texts = [name for name in usual if _is_text(schema.field(name).type)]
        found = next(iter([name for name in usual if name in with_bytes] + with_bytes + texts), None)
    if found is not None and (_is_bytes(schema.field(found).type) or _is_text(schema.field(found).type)):
        return found
    url = next((name for name in URLS if name in names), None)
    if url and config.image is None:
        raise url_list_error(source, config, "parquet", url, names)
    wanted = "images" if config.image is None else f"images called {' or '.join(config.image)}"
    raise ConfigError(
        f"input {config.name}: {source.uri} has no column of {wanted}; saw {', '.join(names[:50])}; "
        f"set `image: [{names[0] if names else 'COLUMN'}]` of the input if that is the one"
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    """Tell whether a column may hold images: bytes, or a struct with some."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_bytes(kind: pa.DataType) -> bool:
    """Tell whether there are bytes anywhere in a column: other images, features; they are left out."""
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind):
        return True
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return _is_bytes(kind) or any(map(_holds_bytes, inner))


def _batches(table: pq.ParquetFile, group: int, columns: _TableColumns) -> Iterator[pa.RecordBatch]:
    meta = table.metadata.row_group(group)
    row = max(1, sum(_leaf_sizes(meta).values()) // max(1, meta.num_rows))
    yield from table.iter_batches(
        batch_size=max(1, min(BATCH_ROWS, BATCH_BYTES // row)),
        row_groups=[group],
        columns=[columns.image, *columns.convert],
        use_threads=False,
    )


class _BatchRows:
    """Some rows of a row group: `first` is the number of the first in it, `number` in the file."""

    def __init__(
        self,
        batch: pa.RecordBatch,
        columns: _TableColumns,
        group: int,
        first: int,
        number: int,
        *,
        copy: bool,
    ) -> None:
        self._columns, self._group, self._first, self._number = columns, group, first, number
        self._copy = copy
        cells = batch.column(batch.schema.get_field_index(columns.image))
        self._bytes = parquet_images.bytes_of(cells) if columns.is_bytes else None
        self._paths = _paths(cells)
        self._others = batch.select([name for name in columns.convert if name in batch.schema.names])
        self._values = _values(self._others)

    def examples(self, source: Source, config: InputConfig, limits: Limits) -> Iterator[SourceExample]:
        for row in range(self._others.num_rows if self._values is None else len(self._values)):
            where = f"{source.path}: row {self._number + row}"
            key = self._default_key(row, source)
            try:
                fields = self._fields(row, where, config)
                own = next(
                    (str(fields.pop(name)) for name in KEYS if fields.get(name) not in (None, "")), None
                )
                key = own or key
                yield self._example(row, fields, own, where, source, config, limits)
            except DataError as error:
                yield SourceExample.failing(key, error.reason, error.detail)

    def _default_key(self, row: int, source: Source) -> str:
        stem = source.path.removesuffix(".parquet")
        return f"{stem}/{self._number + row:09d}"

    def _example(
        self,
        row: int,
        fields: dict[str, Any],
        own: str | None,
        where: str,
        source: Source,
        config: InputConfig,
        limits: Limits,
    ) -> SourceExample:
        captions, used = captions_of(fields, config), caption_names(fields, config)
        seen = (self._columns.image,)
        cell = self._bytes[row] if self._bytes is not None else None
        if cell is not None and cell.is_valid:
            load = partial(self._load, cell, row, where, source, limits, (captions, fields, used, seen))
            return SourceExample(own or self._default_key(row, source), load)
        path = self._paths[row].as_py() if self._paths is not None else None
        if not path:
            if self._columns.is_bytes:
                raise DataError(
                    Reason.IMAGE_MISSING, f"{where}: no image in the column `{self._columns.image}`"
                )
            raise no_image({**fields, self._columns.image: None}, config, where)
        path = check_path(path, where, source.images)
        from_file = loader(path, captions, fields, source, limits, config.links, used, seen)
        return SourceExample(own or key_of(path), from_file)

    def _fields(self, row: int, where: str, config: InputConfig) -> dict[str, Any]:
        if self._values is None:  # a text is none: of which row?
            found = _values(self._others.slice(row, 1))
            if found is None:
                raise DataError(Reason.RECORD_INVALID, f"{where}: a text that is not UTF-8")
            said = found[0]
        else:
            said = self._values[row]
        fields = {name: self._columns.convert[name](value) for name, value in said.items()}
        if self._columns.labels in fields and config.labels is not None:
            fields[config.labels] = labelled(fields.pop(self._columns.labels))
        return fields

    def _load(
        self,
        cell: pa.Scalar,
        row: int,
        where: str,
        source: Source,
        limits: Limits,
        said: tuple[list[Any], dict[str, Any], tuple[str, ...], tuple[str, ...]],
    ) -> Record:
        buffer = cell.as_buffer()
        limits.check(where, buffer.size)
        place = image_copies.wanted()
        if not self._copy:
            name = source.uri.rpartition("/")[2]
            place = parquet_images.reference(
                name, self._columns.image, self._group, self._first + row, buffer.size
            )
        return Record(place, buffer.to_pybytes(), *said)


def _paths(cells: pa.Array) -> pa.Array | None:
    """Give the paths in a column of images, if it has some."""
    if not pa.types.is_struct(cells.type):
        return cells if _is_text(cells.type) else None
    names = [field.name for field in cells.type]
    return cells.field("path") if "path" in names and _is_text(cells.type.field("path").type) else None


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]] | None:
    """Give rows as Python values; None if a text in them is not UTF-8."""
    if not batch.num_columns:
        return [{} for _ in range(batch.num_rows)]
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
    except UnicodeDecodeError:
        return None
    return found
