"""The report on near-duplicates: their clusters, which of them lie in several splits, and which have a member
with more pixels than the first.

RUN/report/near_duplicates.parquet  a row a cluster; only where `duplicates.near` is set
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tagmill.pipeline.current import current_records
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import REPORT, RunFolder
from tagmill.tag_system.core import files
from tagmill.tag_system.shard_contract import SPLITS, Split
from tagmill.transforms import parquet, parts
from tagmill.transforms.duplicates import NEAR_SCHEMA, Duplicates
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.near_duplicates import NEAR_DUPLICATE

NEAR_TABLE = "near_duplicates.parquet"

NEAR_CLUSTERS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("members", pa.int64(), nullable=False),
        *(pa.field(split, pa.int64(), nullable=False) for split in SPLITS),
        pa.field("farthest", pa.int32(), nullable=False),
        pa.field("largest_key", pa.string(), nullable=False),
        pa.field("largest_width", pa.int32(), nullable=False),
        pa.field("largest_height", pa.int32(), nullable=False),
    ]
)
"""A row a cluster, in the order of their firsts: the first (`key`), how many members there are with it, and
of each split, the farthest from the first, and the earliest of those with most pixels."""

MEMBERS = pa.schema([(name, pa.int64()) for name in ("part", "row", "first_part", "first_row", "distance")])

FACTS = ["row", "key", "split", "width", "height"]


@dataclass(frozen=True)
class NearCounts:
    """What there is of near-duplicates in a run.

    Attributes:
        clusters: How many clusters there are.
        members: Examples in them.
        leaks: Clusters with examples of train, and of val or test.
        leaked: Examples of val and test in those.
        larger: Clusters in which a later example has more pixels than the first.
    """

    clusters: int
    members: int
    leaks: int
    leaked: int
    larger: int

    def said(self) -> str:
        """Say it in a line."""
        return (
            f"near-duplicates: {self.clusters} clusters of {self.members} examples; {self.leaks} of them "
            f"have examples of train, and {self.leaked} of val or test; in {self.larger} a later example has "
            "more pixels than the first"
        )


def near_table(run: RunFolder) -> pa.Table | None:
    """Make the report's table of the current generations; None where nobody looked for near-duplicates."""
    records = {record.stage: record for record in current_records(run)}
    record = records.get(Duplicates.name)
    if record is None or not record.settings.get("near"):
        return None
    members = _members(run, record)
    ingest = records[Ingest.name]
    facts = _facts(run.generation(ingest.stage, ingest.generation), list(record.parts), members)
    return _clusters(members, facts)


def near_counts(run: RunFolder) -> NearCounts | None:
    """Sum the report's table up; None where there is none."""
    uri = run.path(REPORT, NEAR_TABLE)
    if not files.exists(uri):
        return None
    return near_sums(parquet.read_table(uri, ["key", "members", *SPLITS, "largest_key"]))


def near_sums(table: pa.Table) -> NearCounts:
    """Sum up a table of clusters."""
    held_out = sum(table[split].to_numpy() for split in SPLITS if split != "train")
    leaks = (table["train"].to_numpy() > 0) & (held_out > 0)
    larger = pc.sum(pc.not_equal(table["key"], table["largest_key"])).as_py() or 0
    members = int(table["members"].to_numpy().sum())
    return NearCounts(table.num_rows, members, int(leaks.sum()), int(held_out[leaks].sum()), larger)


def _members(run: RunFolder, record: StageRecord) -> pa.Table:
    """Read which examples are in clusters, the firsts among them, as numbers of parts and rows."""
    folder = run.generation(record.stage, record.generation)
    numbers = {name: number for number, name in enumerate(record.parts)}
    with ThreadPoolExecutor(files.THREADS) as pool:
        found = list(pool.map(lambda name: _later(folder, name, numbers), record.parts))
    later = pa.concat_tables([MEMBERS.empty_table(), *found])
    firsts = later.select(["first_part", "first_row"]).group_by(["first_part", "first_row"]).aggregate([])
    columns = [firsts[name] for name in ("first_part", "first_row") * 2]
    zeros = pa.array(np.zeros(firsts.num_rows, np.int64))
    every = pa.concat_tables([later, pa.table([*columns, zeros], MEMBERS.names)])
    return every.sort_by([(name, "ascending") for name in ("first_part", "first_row", "part", "row")])


def _later(folder: str, name: str, numbers: Mapping[str, int]) -> pa.Table:
    """Read a part's near-duplicates."""
    columns = [field for field in NEAR_SCHEMA.names if field != "key"]
    table = parquet.read_table(parts.part_uri(folder, name), columns)
    table = table.filter(pc.equal(table["reason"], NEAR_DUPLICATE))
    winners = [numbers[winner] for winner in table["winner_part"].to_pylist()]
    own = [numbers[name]] * table.num_rows
    rest = [table["row"], pa.array(winners, pa.int64()), table["winner_row"], table["distance"]]
    return pa.table([pa.array(own, pa.int64()), *rest], MEMBERS.names).cast(MEMBERS)


def _facts(ingest: str, names: list[str], members: pa.Table) -> pa.Table:
    """Read what ingest says of the members, in their order."""
    of_part = np.asarray(members["part"])
    order = np.argsort(of_part, kind="stable")
    rows = np.asarray(members["row"])[order]
    borders = np.searchsorted(of_part[order], np.arange(len(names) + 1))

    def one(number: int) -> pa.Table:
        wanted = rows[borders[number] : borders[number + 1]]
        table = parquet.read_table(parts.part_uri(ingest, names[number]), FACTS).replace_schema_metadata()
        return table.take(np.searchsorted(table["row"].to_numpy(), wanted))

    used = np.flatnonzero(np.diff(borders)).tolist()
    with ThreadPoolExecutor(files.THREADS) as pool:
        tables = list(pool.map(one, used))
    if not tables:
        return pa.table({name: NEAR_CLUSTERS_SCHEMA.empty_table()[name] for name in FACTS[1:]})
    return pa.concat_tables(tables).take(np.argsort(order))


def _clusters(members: pa.Table, facts: pa.Table) -> pa.Table:
    """Sum up members, which are ordered by cluster and in it by their order."""
    starts = _starts(np.asarray(members["first_part"]), np.asarray(members["first_row"]))
    sizes = np.diff(np.append(starts, members.num_rows))
    cluster = np.repeat(np.arange(len(starts)), sizes)
    pixels = np.asarray(facts["width"]).astype(np.int64) * np.asarray(facts["height"])
    largest = np.lexsort((np.arange(len(pixels)), -pixels, cluster))[starts]
    columns = {name: facts[name].take(starts) for name in ("key", "split", "width", "height")}
    columns |= {f"largest_{name}": facts[name].take(largest) for name in ("key", "width", "height")}
    columns |= dict(_counted(cluster, len(starts), np.asarray(facts["split"])))
    farthest = np.zeros(len(starts), np.int32)
    np.maximum.at(farthest, cluster, np.asarray(members["distance"]).astype(np.int32))
    columns |= {"members": pa.array(sizes), "farthest": pa.array(farthest)}
    return pa.table([columns[name] for name in NEAR_CLUSTERS_SCHEMA.names], NEAR_CLUSTERS_SCHEMA.names).cast(
        NEAR_CLUSTERS_SCHEMA
    )


def _starts(part: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find where each cluster begins."""
    changes = (np.diff(part, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 0)
    return np.flatnonzero(changes)


def _counted(
    cluster: NDArray[np.int64], count: int, split: NDArray[np.object_]
) -> Iterator[tuple[Split, pa.Array]]:
    """Count the members of each cluster by split."""
    for name in SPLITS:
        yield name, pa.array(np.bincount(cluster[split == name], minlength=count))
