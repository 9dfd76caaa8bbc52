"""Tasks that reach workers through a file: so many that a job which holds them is too large for its runner.

A Parquet file with a row a task: its name, and the task as Beam encodes it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import Coder, registry

from tagmill.tag_system.core import files
from tagmill.transforms import parquet

FOLDER = "tasks"
"""Folder of a generation, or of an attempt, for the files of jobs that are at work."""

GROUP = 200
"""Tasks that are read together."""

SCHEMA = pa.schema(
    [pa.field("name", pa.string(), nullable=False), pa.field("task", pa.binary(), nullable=False)]
)


def write_tasks(uri: str, tasks: Sequence[Any]) -> None:
    """Write the tasks of a job, all of one class."""
    coder = _coder(type(tasks[0]))
    columns = [[task.name for task in tasks], [coder.encode(task) for task in tasks]]
    files.create_bytes(uri, parquet.table_bytes(pa.table(columns, schema=SCHEMA), group=GROUP))


def _coder(kind: type) -> Coder:
    return registry.get_coder(kind)


class ReadTasks(beam.PTransform):
    """Gives the tasks of a file, spread over the workers."""

    def __init__(self, uri: str, kind: type, count: int) -> None:
        super().__init__()
        self._uri = uri
        self._kind = kind
        self._groups = -(-count // GROUP)

    def expand(self, begin: Any) -> beam.PCollection[Any]:
        """Read a group at a time, and deal the tasks of all of them out anew."""
        return (
            begin
            | "Groups" >> beam.Create(range(self._groups))
            | "Read" >> beam.ParDo(_ReadFn(self._uri, self._kind)).with_output_types(self._kind)
            | "Deal out" >> beam.Reshuffle()
        )


class _ReadFn(beam.DoFn):
    def __init__(self, uri: str, kind: type) -> None:
        self._uri = uri
        self._kind = kind

    def process(self, element: int) -> Iterator[Any]:
        coder = _coder(self._kind)
        with parquet.opened(self._uri) as table:
            tasks = table.read_row_group(element, ["task"])["task"].to_pylist()
        yield from map(coder.decode, tasks)


class PartOrder(dict[str, int]):
    """The place of each part in ingest's order. What is pickled names the file of the tasks, if there is one.

    Args:
        names: The names of the parts, in order.
        uri: The file that holds their tasks, or empty.
    """

    def __init__(self, names: Sequence[str], uri: str = "") -> None:
        super().__init__((name, place) for place, name in enumerate(names))
        self._uri = uri

    @property
    def names(self) -> "PartNames":
        """The names of the parts, in order."""
        return PartNames(self, self._uri)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_stored_order, (self._uri,)) if self._uri else (PartOrder, (list(self),))


class PartNames(list[str]):
    """The names of parts by their place; pickled as `PartOrder` is."""

    def __init__(self, names: Iterable[str], uri: str) -> None:
        super().__init__(names)
        self._uri = uri

    def __reduce__(self) -> tuple[Any, ...]:
        return (_stored_names, (self._uri,)) if self._uri else (list, (list(self),))


@lru_cache(maxsize=1)
def _stored_order(uri: str) -> PartOrder:
    return PartOrder(parquet.read_table(uri, ["name"])["name"].to_pylist(), uri)


def _stored_names(uri: str) -> PartNames:
    return _stored_order(uri).names
