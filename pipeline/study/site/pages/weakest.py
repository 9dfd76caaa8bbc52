"""The weakest decisions: kept tags with the least evidence, and dropped ones with the most."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.study.site.base import Links, Page, PartTables, Sheet, SiteRun
from tagmill.pipeline.study.site.sampling import BY_CHANCE, FirstRows, first_of_each
from tagmill.tag_system.decisions import Policy

SHOWN, A_TAG, AN_IMAGE = 60, 3, 2
"""Decisions that each list shows, and how many of one tag and of one image at most."""


class Weakest(Page):
    """Lists what a person should look at first."""

    path, title = "weakest.html", "Weakest"

    def __init__(self, site: SiteRun) -> None:
        super().__init__(site)
        self._kept = FirstRows(("tag",), ("support", *BY_CHANCE), A_TAG)
        self._dropped = FirstRows(("tag",), ("lack", *BY_CHANCE), A_TAG)

    def add(self, tables: PartTables) -> None:
        """Rank a part's decisions."""
        if tables.decisions is None:
            return
        decided = tables.decisions.filter(pc.not_equal(tables.decisions["rule"], "not_proposed"))
        evidence = support(decided, self.site.policy)
        decided = decided.append_column("support", evidence).append_column("lack", pc.negate(evidence))
        self._kept.add(decided.filter(pc.equal(decided["verdict"], "kept")))
        self._dropped.add(decided.filter(pc.equal(decided["verdict"], "dropped")))

    def chosen(self) -> Iterable[pa.Table]:
        """Give what is listed."""
        return [table for table in self._listed().values() if table is not None]

    def _listed(self) -> dict[str, pa.Table | None]:
        found = {"kept": (self._kept, "support"), "dropped": (self._dropped, "lack")}
        return {verdict: _first(rows.table(), order) for verdict, (rows, order) in found.items()}

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the page."""
        lists = {
            verdict: [] if table is None else table.to_pylist() for verdict, table in self._listed().items()
        }
        values: dict[str, Any] = {
            "lists": lists,
            "policy": self.site.policy,
            "a_tag": A_TAG,
            "an_image": AN_IMAGE,
        }
        queries = [query("kept", self.site.policy), query("dropped", self.site.policy)]
        yield Sheet(self.path, self.title, "weakest.html", values, queries)


def _first(table: pa.Table | None, order: str) -> pa.Table | None:
    """Order the rows of all tags, and keep the first, of one image a few."""
    if table is None:
        return None
    columns = (order, *BY_CHANCE, "tag")
    rows = first_of_each(table, ("part", "row"), columns, AN_IMAGE)
    return rows.take(pc.sort_indices(rows, [(name, "ascending") for name in columns])[:SHOWN])


def support(decisions: pa.Table, policy: Policy) -> pa.ChunkedArray:
    """Weigh all evidence on decisions in one number: what speaks for a tag less what speaks against it.

    For it: 1 for each label and caption, the tagger's score and the best box's as shares of the thresholds
    from which they count, 1 at most. Against it: 1 if it was looked for in vain, how much more the box looks
    like another tag as a share of the margin, 1 at most, and its rank among the tag's boxes. Nobody has
    fitted it: it orders what to look at, and decides nothing.
    """
    named = pc.add(pc.add(decisions["given"], decisions["parsed"]), decisions["generated"])
    lead = pc.subtract(decisions["other_score"], decisions["own_score"])
    vain = pc.and_(decisions["asked"], pc.equal(decisions["boxes"], 0))
    terms = [
        pc.cast(named, pa.float64()),
        _share(decisions["tagger"], policy.tagger_threshold),
        _share(decisions["box_score"], policy.adaptive.strong_box),
        pc.negate(pc.cast(vain, pa.float64())),
        pc.negate(_share(lead, policy.adaptive.margin)),
        pc.negate(pc.fill_null(pc.cast(decisions["distance_rank"], pa.float64()), 0.0)),
    ]
    total = terms[0]
    for term in terms[1:]:
        total = pc.add(total, term)
    return pc.round(total, 6)


def _share(scores: pa.ChunkedArray, whole: float) -> pa.ChunkedArray:
    """Give scores as shares of a constant, from 0 to 1; 0 where there is none."""
    found = pc.divide(pc.cast(scores, pa.float64()), max(whole, 1e-6))
    return pc.max_element_wise(0.0, pc.min_element_wise(1.0, pc.fill_null(found, 0.0)))


def query(verdict: str, policy: Policy) -> str:
    """Write the list as a query of `tagmill sql`."""
    tagger, strong, margin = (
        max(whole, 1e-6)
        for whole in (policy.tagger_threshold, policy.adaptive.strong_box, policy.adaptive.margin)
    )
    order = "support" if verdict == "kept" else "support DESC"
    return f"""SELECT tag, key, rule, basis, support FROM (
  SELECT *, round(
         given + parsed + generated
         + greatest(0, least(1, coalesce(tagger::DOUBLE / {tagger:g}, 0)))
         + greatest(0, least(1, coalesce(box_score::DOUBLE / {strong:g}, 0)))
         - (asked AND boxes = 0)::INT
         - greatest(0, least(1, coalesce((other_score - own_score)::DOUBLE / {margin:g}, 0)))
         - coalesce(distance_rank::DOUBLE, 0), 6) AS support
  FROM clean JOIN ingest USING (part, row, key)
  WHERE verdict = '{verdict}' AND rule <> 'not_proposed'
  QUALIFY row_number() OVER (PARTITION BY tag ORDER BY {order}, sha256, key) <= {A_TAG})
QUALIFY row_number() OVER (PARTITION BY part, row ORDER BY {order}, tag) <= {AN_IMAGE}
ORDER BY {order}, sha256, key, tag
LIMIT {SHOWN};"""
