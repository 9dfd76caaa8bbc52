"""Reads the parts of a run for the pages, and sees that all of them get each part in its order."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.current import living_rows
from tagmill.pipeline.study.site.base import Page, PartTables, SiteRun
from tagmill.tag_system.core import files
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.clean import Clean
from tagmill.transforms.duplicates import Duplicates
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.parse import Parse


def walk(site: SiteRun, pages: Sequence[Page]) -> None:
    """Show all pages each part of the run, as many in memory as there are threads."""
    for tables in _tables_of(site):
        for page in pages:
            page.add(tables)


def _tables_of(site: SiteRun) -> Iterator[PartTables]:
    living = living_rows(site.run) if Ingest.name in site.records else {}
    names = list(living)
    with ThreadPoolExecutor(files.THREADS) as pool:
        for start in range(0, len(names), files.THREADS):
            some = names[start : start + files.THREADS]
            yield from pool.map(lambda name: _read(site, name, living[name]), some)


def _read(site: SiteRun, name: str, living: int) -> PartTables:
    """Read what the stages say of a part."""
    ingested = _table(site, Ingest.name, name, ["row", "key", "sha256", "captions", "split", "meta"])
    assert ingested is not None  # ingest has every part that there is
    every = ingested.append_column("part", pa.array([name] * ingested.num_rows, pa.string()))
    examples = every.filter(pc.is_in(every["row"], pa.array(bitmaps.numbers(living), pa.int32())))
    decisions, parsed = (_table(site, stage, name) for stage in (Clean.name, Parse.name))
    twins = _table(site, Duplicates.name, name)
    if parsed is not None:
        parsed = parsed.filter(pc.equal(parsed["source"], "given"))
    return PartTables(
        examples,
        None if decisions is None else _joined(decisions, examples),
        None if parsed is None else _joined(parsed, examples),
        None if twins is None else _joined(twins.drop_columns(["key"]), every),
    )


def _table(site: SiteRun, stage: str, name: str, columns: list[str] | None = None) -> pa.Table | None:
    record = site.records.get(stage)
    if record is None or name not in record.parts:
        return None
    uri = parts.part_uri(site.run.generation(stage, record.generation), name)
    return parquet.read_table(uri, columns).replace_schema_metadata()


def _joined(table: pa.Table, examples: pa.Table) -> pa.Table:
    """Keep the rows that are of these examples, and add their keys, digests and part."""
    rows = examples["row"].combine_chunks()
    table = table.filter(pc.is_in(table["row"], rows))
    places = pc.index_in(table["row"], rows)
    for name in ("key", "sha256", "part"):
        table = table.append_column(name, examples[name].take(places))
    return table
