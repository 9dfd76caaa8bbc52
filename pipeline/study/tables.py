"""The current tables of a run as views of DuckDB, which reads the files where they lie, and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from tagmill.pipeline.run_folder import REPORT, RunFolder, named_parts
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.text import one_line
from tagmill.transforms import parts
from tagmill.transforms.features import Features
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.shards import Shards

INDEX_SUFFIX = ".index.parquet"
"""How the names of the indices of shards end."""

DEAD = "dead"
"""The view of the dead letters of all stages."""

BY_SHARD = (Shards.name, Features.name)
"""Stages whose files have the names of shards, not of parts."""

CLOSED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}
"""Settings without which a query could load code, or read variables of this process."""


@contextmanager
def open_tables(run: RunFolder) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the tables of a run in DuckDB: a view for each, over the files as they are when it is opened.

    There are the stages' current tables, or of a stage that was never finished what is there of it; all dead
    letters as `dead`; and the tables of the report. Each has a column `part`, or `shard`, and where rows are
    of examples the `key`. Afterwards DuckDB reads nothing outside the run, and no setting can be changed.
    Raises DamageError for files that cannot be read.
    """
    fs, path = files.filesystem(run.root)
    with TemporaryDirectory(prefix="tagmill-sql-") as scratch:
        connection = duckdb.connect(config={**CLOSED, "temp_directory": scratch})
        try:
            root = path
            if not files.is_local(run.root):
                connection.register_filesystem(fs)
                root = fs.unstrip_protocol(path)
            try:
                _add_views(connection, run, root)
            except duckdb.Error as error:
                raise DamageError(
                    f"{run.root}: {said(error)}; `tagmill verify` says what is damaged"
                ) from error
            connection.execute(f"SET allowed_directories = [{_quoted(root)}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection
        finally:
            connection.close()


def ask(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyConnection:
    """Run one query on the tables of a run; its rows are fetched from what is returned.

    Raises ConfigError in one line for what is not one SELECT, and for what DuckDB refuses.
    """
    with telling(connection):
        return connection.execute(_checked(query))


def ask_whole(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """Run one query as `ask` does; gives the whole answer."""
    with telling(connection):
        return connection.sql(_checked(query)).to_arrow_table()


def _checked(query: str) -> duckdb.Statement:
    statements = duckdb.extract_statements(query)
    if [one.type for one in statements] != [duckdb.StatementType.SELECT]:
        raise ConfigError("the query is not one SELECT: tables of a run are read, one query at a time")
    return statements[0]


@contextmanager
def telling(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Raise what DuckDB says of a query, also while rows are fetched, as ConfigError."""
    try:
        yield
    except duckdb.PermissionException as error:
        raise ConfigError("the query reads a file: only the tables of the run can be read") from error
    except duckdb.CatalogException as error:
        raise ConfigError(f"{said(error)}; the run has {', '.join(view_names(connection))}") from error
    except duckdb.Error as error:
        raise ConfigError(said(error)) from error


def view_names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Name the tables of a run that are open, in alphabetical order."""
    found = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1")
    return [name for (name,) in found.fetchall()]


def said(error: duckdb.Error) -> str:
    """Give the words of an error of DuckDB in one line, without the place in the query."""
    return one_line(str(error).partition("\n\nLINE ")[0])


def _add_views(connection: duckdb.DuckDBPyConnection, run: RunFolder, root: str) -> None:
    letters: list[str] = []
    taken: set[str] = set()
    for stage in run.stages():
        if generation := _generation(run, stage):
            within, folder = files.join(root, stage, generation), run.generation(stage, generation)
            if uris := [files.join(within, name) for name in _tables(stage, folder)]:
                _add_view(connection, stage, uris)
                taken.add(stage)
            dead = files.list_names(files.join(folder, DEAD), parts.SUFFIX)
            letters += [files.join(within, DEAD, name) for name in dead]
    if letters:
        _create(connection, _free(DEAD, taken), _read(letters, "part"))
    else:
        schema = pa.schema([pa.field("part", pa.string()), *parts.DEAD_SCHEMA])
        connection.register(_free(DEAD, taken), schema.empty_table())
    for name in files.list_names(run.path(REPORT), parts.SUFFIX):
        view = _free(name.removesuffix(parts.SUFFIX), taken)
        _create(connection, view, f"FROM read_parquet({_quoted(files.join(root, REPORT, name))})")


def _free(name: str, taken: set[str]) -> str:
    """Give a view a name that no stage, which may be somebody's own, has."""
    return f"{REPORT}_{name}" if name in taken else name


def _generation(run: RunFolder, stage: str) -> str | None:
    """Name the current generation; of a stage that was never finished that with most parts."""
    if current := run.current(stage):
        return current
    begun = {one: len(files.list_names(run.generation(stage, one))) for one in run.begun(stage)}
    return max(begun, key=lambda one: begun[one], default=None)


def _tables(stage: str, folder: str) -> list[str]:
    """Name the files with a stage's table in a generation's folder."""
    if stage == Shards.name:
        return files.list_names(folder, INDEX_SUFFIX)
    return sorted(name + parts.SUFFIX for name in named_parts(files.list_names(folder)))


def _add_view(connection: duckdb.DuckDBPyConnection, stage: str, uris: Sequence[str]) -> None:
    described = connection.execute(f"DESCRIBE FROM read_parquet({_quoted(uris[0])})").fetchall()
    columns = {row[0] for row in described}
    if "row" not in columns and stage != Shards.name:
        _create(connection, stage, f"FROM read_parquet({_listed(uris)})")
        return
    query = _read(uris, "shard" if stage in BY_SHARD else "part")
    if "key" not in columns:
        query = (
            f"SELECT t.part, i.key, t.* EXCLUDE (part) FROM ({query}) AS t "
            f"LEFT JOIN (SELECT part, row, key FROM {Ingest.name}) AS i ON t.part = i.part AND t.row = i.row"
        )
    _create(connection, stage, query)


def _read(uris: Sequence[str], name: str) -> str:
    """Write the query that reads files, with what each is called as the column `name`."""
    called = r"regexp_replace(parse_filename(_file), '(\.index)?\.parquet$', '')"
    return (
        f"SELECT {called} AS {name}, * EXCLUDE (_file) FROM read_parquet({_listed(uris)}, filename = '_file')"
    )


def _create(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    connection.execute(f'CREATE VIEW "{name}" AS {query}')


def _listed(uris: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, uris))}]"


def _quoted(uri: str) -> str:
    """Quote a path for SQL."""
    return "'" + uri.replace("'", "''") + "'"
