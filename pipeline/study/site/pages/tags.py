"""The tags: a table of all of them, and a page for each with examples of every verdict and rule."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup
from numpy.typing import NDArray

from tagmill.pipeline.study.site.base import Links, Page, PartTables, Sheet, SiteRun
from tagmill.pipeline.study.site.charts import Slice, histogram, sparkline, stacked
from tagmill.pipeline.study.site.sampling import BY_CHANCE, FirstRows
from tagmill.tag_system.decisions import Policy
from tagmill.tag_system.kinds import KINDS

OUTCOMES = ("kept", "uncertain", "dropped", "not_proposed")
"""What became of a candidate: its verdict, but for those that nobody proposed."""

MEASURES = {
    "tagger": "tagger's score",
    "box_score": "score of the best box",
    "distance_rank": "rank of the box",
}
"""Columns of clean that are drawn as histograms, and their names."""

SOURCES = ("given", "parsed", "generated", "tagger")

BINS = 20
"""Bins of scores from 0 to 1; the last one has 1, too."""

MOST_WORDS = 20

TABLE = """SELECT tag, kind, images, given, parsed, generated, tagger, proposed, kept, uncertain, dropped,
       not_proposed, rules
FROM tags
ORDER BY proposed DESC, tag;"""


class Tags(Page):
    """Counts scores, words and confusions by tag, and chooses examples."""

    path, title = "tags.html", "Tags"

    def __init__(self, site: SiteRun) -> None:
        super().__init__(site)
        self._samples = FirstRows(("tag", "verdict", "rule"), BY_CHANCE, site.options.samples)
        shape = (len(site.tags), len(OUTCOMES), BINS)
        self._scores: dict[str, NDArray[np.int64]] = {one: np.zeros(shape, np.int64) for one in MEASURES}
        self._names = pa.array([row["tag"] for row in site.tags], pa.string())
        self._words: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._others: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, tables: PartTables) -> None:
        """Count a part."""
        if tables.decisions is None:
            return
        decisions = tables.decisions
        proposed = decisions.filter(pc.not_equal(decisions["rule"], "not_proposed"))
        self._samples.add(proposed)
        self._count_scores(decisions)
        others = proposed.filter(pc.equal(proposed["rule"], "other_tag"))
        _count_pairs(self._others, others["tag"], others["other_tag"])
        if tables.parsed is not None:
            mentions = pc.list_flatten(tables.parsed["mentions"]).combine_chunks()
            _count_pairs(self._words, mentions.field("tag"), pc.utf8_lower(mentions.field("surface")))

    def _count_scores(self, decisions: pa.Table) -> None:
        tags = pc.index_in(decisions["tag"], self._names).to_numpy()
        is_proposed = pc.not_equal(decisions["rule"], "not_proposed")
        outcome = pc.if_else(is_proposed, decisions["verdict"], "not_proposed")
        outcomes = pc.index_in(outcome, pa.array(OUTCOMES)).to_numpy()
        for measure, counts in self._scores.items():
            scores = pc.fill_null(decisions[measure], float("nan")).to_numpy()
            there = ~np.isnan(scores)
            bins = np.clip((scores[there] * np.float32(BINS)).astype(np.int64), 0, BINS - 1)
            np.add.at(counts, (tags[there], outcomes[there], bins), 1)

    def chosen(self) -> Iterable[pa.Table]:
        """Give the chosen decisions, whose boxes are shown."""
        table = self._samples.table()
        return () if table is None else (table.select(["part", "row", "key", "tag"]),)

    def sheets(self, links: Links) -> Iterator[Sheet]:
        """Make the table, and a page for each tag that was proposed anywhere."""
        values: dict[str, Any] = {
            "tags": [
                {**row, "bar": outcome_bar(row), "spark": self._spark(place)}
                for place, row in enumerate(self.site.tags)
            ],
            "kinds": KINDS,
            "sources": SOURCES,
            "rules": sorted({rule for row in self.site.tags for rule, _ in row["rules"]}),
        }
        yield Sheet(self.path, self.title, "tags.html", values, [TABLE])
        samples = self._by_tag()
        for place, row in enumerate(self.site.tags):
            yield self._sheet(place, row, samples.get(row["tag"], []), links)

    def _by_tag(self) -> dict[str, list[dict[str, Any]]]:
        table = self._samples.table()
        found: dict[str, list[dict[str, Any]]] = {}
        for row in [] if table is None else table.to_pylist():
            found.setdefault(row["tag"], []).append(row)
        return found

    def _spark(self, place: int) -> Markup:
        counts = self._scores["tagger"][place].sum(axis=0).tolist()
        return sparkline(counts, title="the tagger's scores from 0 to 1")

    def _sheet(
        self, place: int, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], links: Links
    ) -> Sheet:
        tag = row["tag"]
        rules = dict(row["rules"])
        galleries = []
        for outcome in OUTCOMES[:3]:
            for name, count in sorted(rules.items(), key=lambda pair: -pair[1]):
                verdict, _, rule = name.partition("/")
                some = [one for one in samples if (one["verdict"], one["rule"]) == (verdict, rule)]
                if verdict == outcome and rule != "not_proposed":
                    galleries.append({"verdict": verdict, "rule": rule, "count": count, "decisions": some})
        labels = [one for one in self.site.labels if one["tag"] == tag]
        values = {
            "tag": row,
            "policy": self.site.policy,
            "bar": outcome_bar(row, f"../{links.tags[tag]}"),
            "galleries": galleries,
            "histograms": list(self._histograms(place)),
            "words": self._words[tag].most_common(MOST_WORDS) if tag in self._words else [],
            "labels": labels,
            "others": self._others[tag].most_common(MOST_WORDS) if tag in self._others else [],
            "for_others": sorted(
                ((other, found[tag]) for other, found in self._others.items() if found[tag]),
                key=lambda pair: (-pair[1], pair[0]),
            )[:MOST_WORDS],
        }
        return Sheet(links.tags[tag], tag, "tag.html", values, queries_of(tag, self.site.options.samples))

    def _histograms(self, place: int) -> Iterator[dict[str, Any]]:
        limits = limits_of(self.site.policy)
        for measure, name in MEASURES.items():
            counts = self._scores[measure][place]
            if counts.any():
                drawn = histogram(
                    counts.tolist(), OUTCOMES, limits[measure], title=f"Histogram of the {name}"
                )
                yield {"name": name, "drawn": drawn, "count": int(counts.sum())}


def _count_pairs(counts: defaultdict[str, Counter[str]], ones: pa.Array, others: pa.Array) -> None:
    pairs = pa.table({"one": ones, "other": others})
    for row in pairs.group_by(["one", "other"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
        counts[row["one"]][row["other"]] += row["count_all"]


def outcome_bar(row: Mapping[str, Any], href: str = "") -> Markup:
    """Draw what became of the images that a tag was proposed for."""
    slices = [Slice(name, row[name], name, f"{href}#{name}" if href else "") for name in OUTCOMES[:3]]
    said = ", ".join(f"{row[name]:,} {name}" for name in OUTCOMES[:3])
    return stacked(slices, title=f"Of {row['proposed']:,} proposed: {said}")


def limits_of(policy: Policy) -> dict[str, list[tuple[float, str]]]:
    """Give the constants that each measure is held against, with their names in the config."""
    tagger = [(policy.tagger_threshold, "tagger_threshold")]
    if policy.unchecked_threshold is not None:
        tagger.append((policy.unchecked_threshold, "unchecked_threshold"))
    box, rank = [], []
    if policy.rule == "adaptive":
        box = [(policy.adaptive.weak_box, "weak_box"), (policy.adaptive.strong_box, "strong_box")]
        rank = [(policy.adaptive.outlier_rank, "outlier_rank")]
    elif policy.rule == "paper":
        rank = [(1 - policy.paper.outlier_fraction, "1 - outlier_fraction")]
    return {"tagger": tagger, "box_score": box, "distance_rank": rank}


def queries_of(tag: str, samples: int) -> list[str]:
    """Write what a tag's page shows as queries of `tagmill sql`."""
    name = tag.replace("'", "''")
    return [
        f"""SELECT verdict, rule, key, basis, tagger, box_score, distance_rank, other_tag
FROM clean JOIN ingest USING (part, row, key)
WHERE tag = '{name}' AND rule <> 'not_proposed'
QUALIFY row_number() OVER (PARTITION BY verdict, rule ORDER BY sha256, key) <= {samples}
ORDER BY verdict, rule, sha256, key;""",
        f"""SELECT CASE rule WHEN 'not_proposed' THEN rule ELSE verdict END AS outcome,
       least({BINS - 1}, floor(tagger * {BINS})) AS bin, count(*) AS images
FROM clean
WHERE tag = '{name}' AND tagger IS NOT NULL
GROUP BY ALL
ORDER BY outcome, bin;""",
        f"""SELECT lower(mention.surface) AS words, count(*) AS captions
FROM (SELECT unnest(mentions) AS mention FROM parse WHERE source = 'given')
WHERE mention.tag = '{name}'
GROUP BY words
ORDER BY captions DESC, words;""",
        f"""SELECT other_tag, count(*) AS images
FROM clean
WHERE tag = '{name}' AND rule = 'other_tag'
GROUP BY other_tag
ORDER BY images DESC, other_tag;""",
    ]
