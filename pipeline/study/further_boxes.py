"""What a tag's other boxes would have said: the verdict that each of them gives, had it been the best one.

A rule hears the best box alone. Where a detector finds twenty books on a shelf, the best one may look like
something else, and take the tag with it that the others would have kept.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import Example, Record
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.decisions import Evidence, Verdict, decide
from tagmill.transforms import parquet
from tagmill.transforms.clean import Clusters
from tagmill.transforms.cluster import Cluster

EVIDENCE = tuple(field.name for field in fields(Evidence))

TAGS_AT_ONCE = 256
"""Rows of the cluster table in memory; it has one for each tag, with all distances of the tag's sample."""

_WOULD: dict[Verdict, str] = {"kept": "kept it", "uncertain": "left it uncertain", "dropped": "dropped it"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FurtherBoxes:
    """A tag of an example with more than one box.

    Attributes:
        verdict: The verdict that the best box gave.
        boxes: How many boxes there are, the best one too.
        others: For each other box its row of clean, had it been the best one, best first; `region` is its
            number.
        unmeasured: How many boxes were not embedded though others were: what they would have said is not
            known, and they are not among the others.
    """

    verdict: Verdict
    boxes: int
    others: Sequence[Record]
    unmeasured: int = 0

    def counts(self) -> dict[Verdict, int]:
        """Count the verdicts that the other boxes would have given: kept, uncertain, dropped."""
        found = Counter(other["verdict"] for other in self.others)
        return {verdict: found[verdict] for verdict in _WOULD if found[verdict]}

    @property
    def outdone(self) -> bool:
        """Whether another box would have given a better verdict; weak boxes give worse ones anyway."""
        order = list(_WOULD)
        return any(order.index(verdict) < order.index(self.verdict) for verdict in self.counts())

    def said(self) -> str:
        """Say in a sentence what the best box did, and what the others would have done."""
        best, counts = f"{self.verdict} by the best of {self.boxes} boxes", self.counts()
        if self.boxes == 2:
            (did,) = [f"would have {_WOULD[verdict]}" for verdict in counts] or ["was not measured"]
            return f"{best}; the other one {did}"
        verdicts = [
            f"{count} {'' if number else 'would have '}{_WOULD[verdict]}"
            for number, (verdict, count) in enumerate(counts.items())
        ]
        if self.unmeasured:
            verdicts.append(f"{self.unmeasured} {'was' if self.unmeasured == 1 else 'were'} not measured")
        return f"{best}; of the other {self.boxes - 1}: {', '.join(verdicts)}"


def further_boxes(run: RunFolder, examples: Sequence[Example]) -> list[dict[str, FurtherBoxes]]:
    """Ask the boxes after the best one, for each example and by tag.

    Nothing is said of a tag whose verdict does not rest on a box. The cluster table is read once for all
    examples, the rows of their tags alone are held. Where the rule of somebody's own cannot be had here, a
    warning says so and nothing is found.
    """
    asked = [list(_asked(example)) for example in examples]
    clusters = _clusters(run, {decision["tag"] for decisions in asked for decision in decisions})
    try:
        return [
            {decision["tag"]: _ask(example, decision, clusters) for decision in decisions}
            for example, decisions in zip(examples, asked, strict=True)
        ]
    except ConfigError as error:
        _log.warning("what other boxes would have said is not known: %s", error)
        return [{} for _ in examples]


def _asked(example: Example) -> Iterator[Record]:
    """Give the decisions that rest on a box and might have rested on another one, by tag."""
    found = (one for one in example.decisions if one["basis"] == "region" and one.get("boxes", 0) > 1)
    yield from sorted(found, key=lambda one: str(one["tag"]))


def _ask(example: Example, decision: Record, clusters: Clusters) -> FurtherBoxes:
    tag = decision["tag"]
    regions = [one for one in example.regions if one["tag"] == tag and one["region"]]
    embedded = {one["region"]: one for one in example.embedded or () if one["tag"] == tag}
    others = [
        _had_it_been(region, decision, embedded.get(region["region"], {}), clusters, example)
        for region in regions
        if example.embedded is None or region["region"] in embedded
    ]
    return FurtherBoxes(decision["verdict"], decision["boxes"], others, len(regions) - len(others))


def _had_it_been(
    region: Record, decision: Record, embedded: Record, clusters: Clusters, example: Example
) -> Record:
    """Make the row of clean that there would be, had this region been the best one of its tag."""
    measured: dict[str, Any] = {
        name: embedded.get(name) for name in ("own_score", "other_score", "region_score")
    }
    if embedded:
        place = clusters.distance(decision["tag"], embedded["embedding"])
        measured["distance"], measured["distance_rank"] = place
    else:
        measured["distance"] = measured["distance_rank"] = None
    known = Evidence(**{name: decision[name] for name in EVIDENCE})
    evidence = replace(known, box_score=region["score"], **measured)
    decided = vars(evidence) | vars(decide(evidence, example.policy))
    return decision | decided | {"other_tag": embedded.get("other_tag"), "region": region["region"]}


def _clusters(run: RunFolder, tags: Iterable[str]) -> Clusters:
    """Read what the run's current cluster table says of some tags; of none where there is no table."""
    wanted, generation = sorted(tags), run.current(Cluster.name)
    if not wanted or generation is None:
        return Clusters(None)
    found = [Cluster.schema.empty_table()]
    uri = files.join(run.generation(Cluster.name, generation), Cluster.table)
    with parquet.opened(uri) as table:
        for batch in table.iter_batches(TAGS_AT_ONCE):
            rows = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            found.append(rows.filter(pc.is_in(rows["tag"], pa.array(wanted))))
            if rows["tag"][-1].as_py() >= wanted[-1]:  # the table is ordered by tag
                break
    return Clusters(pa.concat_tables(found).combine_chunks())
