"""Duplicates and near-duplicates: what was dropped for another example, and clusters that splits share."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.study.near_report import near_sums
from tagmill.pipeline.study.site.base import Links, Page, PartTables, Sheet, SiteRun
from tagmill.pipeline.study.site.sampling import BY_CHANCE, FirstRows
from tagmill.transforms import parquet, parts
from tagmill.transforms.duplicates import Duplicates as DuplicatesStage
from tagmill.transforms.ingest import Ingest

A_REASON = 20
"""Pairs that are shown of each reason."""

PAIRS = f"""SELECT key, reason, winner_part, winner_row
FROM duplicates JOIN ingest USING (part, row, key)
QUALIFY row_number() OVER (PARTITION BY reason ORDER BY sha256, key) <= {A_REASON}
ORDER BY reason, sha256, key;"""

CLUSTERS = """SELECT key, split, members, train, val, test, farthest
FROM near_duplicates
ORDER BY members DESC, key
LIMIT 40;"""


class DuplicatesPage(Page):
    """Shows pairs side by side."""

    path, title = "duplicates.html", "Duplicates"

    def __init__(self, site: SiteRun) -> None:
        super().__init__(site)
        self._twins = FirstRows(("reason",), BY_CHANCE, A_REASON)

    def add(self, tables: PartTables) -> None:
        """Choose pairs by chance."""
        if tables.twins is not None:
            self._twins.add(tables.twins)

    def chosen(self) -> Iterable[pa.Table]:
        """Give both sides of the pairs."""
        pairs = self._twins.table()
        if pairs is None:
            return
        yield pairs.select(["part", "row", "key"])
        yield from (
            pa.table({name: [one[name]] for name in ("part", "row", "key")}) for one in self._winners(pairs)
        )

    def _winners(self, pairs: pa.Table) -> list[dict[str, Any]]:
        """Find the keys of those that won, in the order of the pairs."""
        folder = self.site.run.generation(Ingest.name, self.site.records[Ingest.name].generation)
        keys: dict[str, dict[int, str]] = {}
        found = []
        for pair in pairs.to_pylist():
            part, row = pair["winner_part"], pair["winner_row"]
            if part not in keys:
                table = parquet.read_table(parts.part_uri(folder, part), ["row", "key"]).to_pydict()
                keys[part] = dict(zip(table["row"], table["key"], strict=True))
            found.append({"part": part, "row": row, "key": keys[part][row]})
        return found

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        pairs = self._twins.table()
        listed = [] if pairs is None else pairs.to_pylist()
        near = self.site.near
        record = self.site.records.get(DuplicatesStage.name)
        values: dict[str, Any] = {
            "was_run": record is not None,
            "pairs": list(zip(listed, [] if pairs is None else self._winners(pairs), strict=True)),
            "dropped": {} if record is None else _dropped(record),
            "sums": None if near is None else near_sums(near),
            "clusters": [] if near is None else _largest(near),
        }
        yield Sheet(self.path, self.title, "duplicates.html", values, [PAIRS, *([CLUSTERS] if near else [])])


def _dropped(record: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in record.parts.values():
        for reason, count in part.counts.dropped.items():
            found[reason] = found.get(reason, 0) + count
    return dict(sorted(found.items()))


def _largest(near: pa.Table) -> list[dict[str, Any]]:
    order = pc.sort_indices(near, [("members", "descending"), ("key", "ascending")])[:40]
    rows: list[dict[str, Any]] = near.take(order).to_pylist()
    return rows
