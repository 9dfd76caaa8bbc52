"""Clean: all evidence on the tags of an image -> a verdict on each."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from tagmill.models.base import Floats
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.decisions import BUILT_IN, Evidence, Policy, decide, own_rule
from tagmill.transforms.cluster import matrix, nearest_distance
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import PartStage

Regions = Mapping[tuple[int, str], dict[str, Any]]
"""Records of embed, by row and tag."""

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("basis", pa.string(), nullable=False),
        pa.field("given", pa.int32(), nullable=False),
        pa.field("parsed", pa.int32(), nullable=False),
        pa.field("generated", pa.int32(), nullable=False),
        pa.field("probe", pa.int32()),
        pa.field("tagger", pa.float32()),
        pa.field("asked", pa.bool_(), nullable=False),
        pa.field("boxes", pa.int32(), nullable=False),
        pa.field("box_score", pa.float32()),
        pa.field("own_score", pa.float32()),
        pa.field("other_score", pa.float32()),
        pa.field("other_tag", pa.string()),
        pa.field("region_score", pa.float32()),
        pa.field("distance", pa.float32()),
        pa.field("distance_rank", pa.float32()),
        pa.field("presence", pa.float32()),
        pa.field("presence_model", pa.string()),
        pa.field("review", pa.string()),
        pa.field("implied_by", pa.string()),
    ]
)
"""A row for each candidate of an image; scores, distance and rank belong to its best box. `probe` counts how
often it was proposed as a hard negative, `presence` is a verifier's score, `review` the answer of a review,
`implied_by` the kept tag that a tag follows from. Null: nobody was asked."""


class CleanConfig(Config):
    """The policy that gives verdicts."""

    policy: Policy = Policy()


class Clean(PartStage[CleanConfig]):
    """Gives a verdict on each candidate; the only stage with thresholds for verdicts."""

    name = "clean"
    version = 2
    schema = SCHEMA
    tables = ("cluster",)
    slices = {"ingest": "splits"}
    follows_rows = True

    @classmethod
    def remarks(cls, config: Mapping[str, Any]) -> Iterator[str]:
        """Name thresholds that lie under the floor of the candidates, which leaves nothing there to decide
        on."""
        policy = config[cls.name].policy
        if config["localize"] is None and policy.rule not in BUILT_IN:
            yield f"clean.policy.rule: {policy.rule} is never asked, as the stage localize is switched off"
        if config["tag"] is None:
            return
        floor = config["candidate_floor"]
        for name in ("tagger_threshold", "unchecked_threshold"):
            threshold = getattr(policy, name)
            if threshold is not None and threshold < floor:
                yield (
                    f"clean.policy.{name}: no candidate scores under candidate_floor {floor}; lower that too"
                )

    def inputs(self) -> tuple[str, ...]:
        """Candidates with what their sources say, and what is known of their regions."""
        return ("ingest", "candidates", "localize", "embed", "cluster")

    def _spec(self) -> dict[str, Any]:
        config = self.config.changed()
        if policy := self.config.policy.in_force():
            config["policy"] = policy
        else:
            config.pop("policy", None)
        if self.config.policy.rule in BUILT_IN:
            return {"config": config}
        return {"config": config, "rule_version": own_rule(self.config.policy).version}

    @property
    def settings(self) -> dict[str, Any]:
        """The config, without the constants of rules that are not chosen."""
        return {"policy": self.config.policy.model_dump(mode="json", exclude=self.config.policy.idle())}

    def process(self, inputs: Inputs) -> Output:
        """Decide on the candidates of one part."""
        clusters = Clusters(inputs.tables.get("cluster"))
        regions = best_regions(inputs)
        records = [record for row in inputs.rows for record in self._of_row(inputs, row, regions, clusters)]
        splits: dict[str, int] = {}
        for row in inputs.rows:
            split = inputs.examples[row]["split"]
            splits[split] = splits.get(split, 0) + 1
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), notes={"splits": splits})

    def _of_row(
        self, inputs: Inputs, row: int, regions: Regions, clusters: "Clusters"
    ) -> Iterator[dict[str, Any]]:
        boxes: dict[str, list[dict[str, Any]]] = {}
        for region in inputs.of_row("localize", row):
            boxes.setdefault(region["tag"], []).append(region)
        for candidate in inputs.of_row("candidates", row):
            tag = candidate["tag"]
            region = regions.get((row, tag), {})
            evidence = gather_evidence(candidate, boxes.get(tag, []), region, clusters)
            decision = decide(evidence, self.config.policy)
            yield (
                {"row": row, "tag": tag, "kind": candidate["kind"]}
                | vars(evidence)
                | vars(decision)
                | {"other_tag": region.get("other_tag")}
            )


def best_regions(inputs: Inputs) -> Regions:
    """Find what embed says of the best box of each tag, region 0, which stands for its tag."""
    if "embed" not in inputs:
        return {}
    table = inputs.parts["embed"].table
    records = region_records(table.filter(pc.equal(table["region"], 0)))
    return {(record["row"], record["tag"]): record for record in records}


def region_records(table: pa.Table) -> list[dict[str, Any]]:
    """Give rows of embed as records, with embeddings as float16 arrays (dimension,) in the table's memory.

    As Python's numbers they would take most of the time.
    """
    records = table.drop_columns(["embedding"]).to_pylist()
    embeddings = matrix(table["embedding"])
    return [record | {"embedding": embedding} for record, embedding in zip(records, embeddings, strict=True)]


class Clusters:
    """The cluster table, by tag."""

    def __init__(self, table: pa.Table | None) -> None:
        self._table = table
        tags = table.column("tag").to_pylist() if table is not None else []
        self._places = {tag: index for index, tag in enumerate(tags)}
        self._read: dict[str, tuple[Floats, Floats] | None] = {}

    def distance(self, tag: str, embedding: ArrayLike) -> tuple[float | None, float | None]:
        """Measure a region's distance to its tag's nearest centre, and its rank.

        The rank is the share, 0..1, of the tag's sampled regions that lie nearer. Both are None for a tag
        without clusters, and both are float32 values: what is stored is what was decided on.
        """
        if tag not in self._read:
            self._read[tag] = self._row(tag)
        found = self._read[tag]
        if found is None:
            return None, None
        centroids, distances = found
        distance = nearest_distance(np.array([embedding], dtype=np.float32), centroids)[0]
        # What lies as far does not lie nearer: regions that all look the same are not outliers.
        nearer = np.searchsorted(distances, distance, side="left")
        return float(distance), float(np.float32(nearer / len(distances)))

    def _row(self, tag: str) -> tuple[Floats, Floats] | None:
        """Read a tag's centres (k, dimension) and the distances of its sample (n,), rising."""
        if self._table is None or tag not in self._places:
            return None
        row = {name: self._table[name][self._places[tag]] for name in self._table.column_names}
        if not row["k"].as_py():
            return None
        centroids, distances = (row[name].values.to_numpy() for name in ("centroids", "distances"))
        return centroids.reshape(row["k"].as_py(), row["dimension"].as_py()), distances


def gather_evidence(
    candidate: dict[str, Any], boxes: list[dict[str, Any]], region: dict[str, Any], clusters: Clusters
) -> Evidence:
    """Put together what is known of one candidate; `region` is of its best box."""
    found = [box for box in boxes if box["region"] is not None]
    distance, rank = clusters.distance(candidate["tag"], region["embedding"]) if region else (None, None)
    return Evidence(
        given=candidate["given"],
        parsed=candidate["parsed"],
        generated=candidate["generated"],
        tagger=candidate["tagger"],
        asked=bool(boxes),
        boxes=len(found),
        box_score=found[0]["score"] if found else None,
        own_score=region.get("own_score"),
        other_score=region.get("other_score"),
        region_score=region.get("region_score"),
        distance=distance,
        distance_rank=rank,
    )
