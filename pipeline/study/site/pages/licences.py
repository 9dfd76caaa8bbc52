"""The licences: how many images of each split stand under which, and a few of each."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa

from tagmill.pipeline.config import RunConfig
from tagmill.pipeline.study.site.base import Links, Page, PartTables, Sheet, SiteRun
from tagmill.pipeline.study.site.sampling import BY_CHANCE, FirstRows
from tagmill.tag_system.core.config import check_values
from tagmill.tag_system.licences import UNKNOWN, forbids, licence_link, licence_of
from tagmill.tag_system.shard_contract import SPLITS
from tagmill.transforms.formats.base import licences_of

A_LICENCE = 12
"""Images that are shown of a licence."""

SAID = """SELECT split_part(key, '/', 1) AS input, meta->>'$.license' AS license, split, count(*) AS images
FROM ingest
GROUP BY ALL
ORDER BY images DESC, input, license, split;"""


TERMS = {"NC": "no commercial use", "ND": "no changed copies"}
"""What licences forbid."""


class Licences(Page):
    """Counts licences as the shards have them: what an image's source says, or else its input."""

    path, title = "licences.html", "Licences"

    def __init__(self, site: SiteRun) -> None:
        super().__init__(site)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._some = FirstRows(("licence",), BY_CHANCE, A_LICENCE)

    @cached_property
    def _sources(self) -> Any:
        return licences_of(check_values(self.site.name, self.site.config, RunConfig).inputs)

    def add(self, tables: PartTables) -> None:
        """Find the licences of a part's examples."""
        examples = tables.examples
        keys, metas = examples["key"].to_pylist(), examples["meta"].to_pylist()
        found = [
            licence_of(self._sources, key, meta) or UNKNOWN for key, meta in zip(keys, metas, strict=True)
        ]
        self._counts.update(zip(found, examples["split"].to_pylist(), strict=True))
        chosen = examples.select(["key", "sha256", "part", "row"])
        self._some.add(chosen.append_column("licence", pa.array(found, pa.string())))

    def chosen(self) -> Iterable[pa.Table]:
        """Give the images that are shown."""
        table = self._some.table()
        return () if table is None else (table,)

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        table = self._some.table()
        rows = [] if table is None else table.to_pylist()
        totals: Counter[str] = Counter()
        for (licence, _), count in self._counts.items():
            totals[licence] += count
        order = sorted(totals, key=lambda licence: (-totals[licence], licence))
        licences = [
            {
                "name": licence,
                "count": totals[licence],
                "splits": [self._counts[licence, split] for split in SPLITS],
                "link": licence_link(licence),
                "terms": [words for term, words in TERMS.items() if forbids(licence, term)],
                "examples": [row for row in rows if row["licence"] == licence],
            }
            for licence in order
        ]
        values: dict[str, Any] = {
            "licences": licences,
            "splits": SPLITS,
            "total": totals.total(),
            "unknown": UNKNOWN,
        }
        yield Sheet(self.path, self.title, "licences.html", values, [SAID])
