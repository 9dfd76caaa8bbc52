"""What gave no tag: captions, labels, and examples that kept none."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.study.site.base import LISTED, Links, Page, PartTables, Sheet, SiteRun
from tagmill.pipeline.study.site.sampling import BY_CHANCE, FirstRows

CAPTIONS = f"""SELECT key, row, caption_index
FROM parse JOIN ingest USING (part, row, key)
WHERE source = 'given' AND len(mentions) = 0
ORDER BY sha256, key, caption_index
LIMIT {LISTED};"""

LABELS = f"""SELECT label, given, nearest
FROM labels
WHERE tag IS NULL
ORDER BY given DESC, label
LIMIT {LISTED};"""

EXAMPLES = f"""SELECT key
FROM ingest ANTI JOIN (FROM clean WHERE verdict = 'kept') USING (part, row)
WHERE (part, row) IN (SELECT (part, row) FROM clean)
ORDER BY sha256, key
LIMIT {LISTED};"""


class Untagged(Page):
    """Shows what the vocabulary and the parser miss."""

    path, title = "untagged.html", "Without tags"

    def __init__(self, site: SiteRun) -> None:
        super().__init__(site)
        self.captions: Counter[str] = Counter()
        self._silent = FirstRows((), (*BY_CHANCE, "caption_index"), LISTED)
        self._bare = FirstRows((), BY_CHANCE, LISTED)
        self._count = 0

    def add(self, tables: PartTables) -> None:
        """Count captions in which the parser found nothing, and examples without a kept tag."""
        self.captions += count_captions(tables)
        if tables.parsed is not None:
            self._silent.add(_with_text(_silent(tables.parsed), tables.examples))
        if tables.decisions is not None:
            kept = tables.decisions.filter(pc.equal(tables.decisions["verdict"], "kept"))
            has = pc.is_in(tables.examples["row"], kept["row"].combine_chunks())
            bare = tables.examples.filter(pc.invert(has)).select(["key", "sha256", "part", "row"])
            self._count += bare.num_rows
            self._bare.add(bare)

    def chosen(self) -> Iterable[pa.Table]:
        """Give the listed examples."""
        return [table for rows in (self._silent, self._bare) if (table := rows.table()) is not None]

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        silent, bare = self._silent.table(), self._bare.table()
        lost = [row for row in self.site.labels if row["tag"] is None]
        values: dict[str, Any] = {
            "captions": self.captions,
            "silent": [] if silent is None else silent.to_pylist(),
            "bare": None if bare is None else bare.to_pylist(),
            "bare_count": self._count,
            "labels": lost[:LISTED],
            "labels_lost": len(lost),
            "labels_given": sum(row["given"] for row in self.site.labels),
            "labels_lost_given": sum(row["given"] for row in lost),
        }
        yield Sheet(self.path, self.title, "untagged.html", values, [CAPTIONS, LABELS, EXAMPLES])


def count_captions(tables: PartTables) -> Counter[str]:
    """Count the captions of a part that were `read`, and those of them that gave no tag, `silent`."""
    if tables.parsed is None:
        return Counter()
    return Counter(read=tables.parsed.num_rows, silent=_silent(tables.parsed).num_rows)


def _silent(parsed: pa.Table) -> pa.Table:
    return parsed.filter(pc.equal(pc.list_value_length(parsed["mentions"]), 0))


def _with_text(silent: pa.Table, examples: pa.Table) -> pa.Table:
    """Add the texts of captions."""
    captions = dict(zip(examples["row"].to_pylist(), examples["captions"].to_pylist(), strict=True))
    places = zip(silent["row"].to_pylist(), silent["caption_index"].to_pylist(), strict=True)
    texts = pa.array([captions[row][index] for row, index in places], pa.string())
    return silent.select(["key", "sha256", "part", "row", "caption_index"]).append_column("caption", texts)
