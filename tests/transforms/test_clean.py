import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import write_squares
from square_models import SquareTagger
from stage_runs import SQUARES, Bench, example, ingest_part, part, shared
from tagmill.tag_system.core import files
from tagmill.tag_system.decisions import Evidence, Policy, decide
from tagmill.tag_system.sample_tags import evidence_of
from tagmill.tag_system.shard_contract import SampleTag
from tagmill.transforms import bitmaps, candidates, cluster, embed, localize, parquet, parse, parts
from tagmill.transforms.candidates import Asked, Candidates, CandidatesConfig
from tagmill.transforms.clean import SCHEMA, Clean, CleanConfig, Clusters
from tagmill.transforms.cluster import Cluster, ClusterConfig, fit
from tagmill.transforms.parts import Inputs
from tagmill.transforms.shards import make_sample
from tagmill.transforms.stage import BUCKET
from tagmill.transforms.tag import TagConfig, TagStage


def single(value):
    """The float32 nearest to a number, which is what a table holds of it."""
    return float(np.float32(value))


def labels(*names):
    return [{"name": name, "box": None} for name in names]


def box(row, tag, region, score):
    return {"row": row, "tag": tag, "region": region, "x1": 0, "y1": 0, "x2": 9, "y2": 9, "score": score}


def region(row, tag, number, embedding=(1, 0), **scores):
    values = {"own_score": None, "other_score": None, "other_tag": None, "region_score": None} | scores
    vector = np.array(embedding, dtype=np.float16)
    return {"row": row, "tag": tag, "region": number, "embedding": vector, **values}


CENTRES = {"red": ((1.0, 0.0), np.arange(8) / 8), "blue": ((0.0, 1.0), np.arange(16) / 8)}


def clusters():
    records = [
        {
            "tag": tag,
            "regions": 50,
            "sampled": 50,
            "dimension": 2,
            "k": 1,
            "centroids": np.array(centre, np.float32),
            "spread": 0.5,
            "distances": distances.astype(np.float32),
        }
        for tag, (centre, distances) in CENTRES.items()
    ]
    records.append(records[0] | {"tag": "green", "k": 0, "centroids": [], "spread": None, "distances": []})
    return pa.Table.from_pylist(records, cluster.SCHEMA)


def by_hand():
    """Row 0: a near red, a far blue, a green that was not found. Row 2: nothing. Row 3: what is given."""
    ingest = ingest_part(
        example(0),
        example(2),
        example(3, labels=labels("purple", "tidy"), split="val"),
        dropped=[1],
    )
    mentions = [
        {"tag": tag, "kind": "object", "surface": tag, "start": 0, "end": 1}
        for tag in ("red", "blue", "green")
    ]
    regions = [
        region(0, "blue", 0, (0.5, -0.75), own_score=0.25, other_score=0.125, other_tag="red"),
        region(0, "red", 0, (1, 0.5), own_score=0.75, other_score=0.1, other_tag="blue", region_score=0.05),
        region(0, "red", 1, (0, 1)),
    ]
    boxes = [
        box(0, "blue", 0, 0.3),
        {"row": 0, "tag": "green"},
        box(0, "red", 0, 0.4),
        box(0, "red", 1, 0.2),
    ]
    caption = {"row": 0, "source": "given", "caption_index": 0, "mentions": mentions}
    named = {"ingest": ingest, "parse": part("parse", parse.SCHEMA, [caption])}
    gatherer = Candidates(CandidatesConfig(), shared(), SQUARES, Asked(localizer=True))
    found = gatherer.process(Inputs("p", named, {}, "")).table.to_pylist()
    return Inputs(
        "p",
        {
            "ingest": ingest,
            "candidates": part("candidates", candidates.SCHEMA, found),
            "localize": part("localize", localize.SCHEMA, boxes),
            "embed": part("embed", embed.SCHEMA, regions),
        },
        {"cluster": clusters()},
        "",
    )


def cleaned(policy):
    stage = Clean(CleanConfig(policy=policy), shared())
    output = stage.process(by_hand())
    assert output.table.schema.equals(SCHEMA)
    return output, {(r["row"], r["tag"]): r for r in output.table.to_pylist()}


def test_evidence_of_a_case_made_by_hand():
    _, found = cleaned(Policy())
    assert list(found) == [(0, "blue"), (0, "green"), (0, "red"), (3, "purple"), (3, "tidy")]
    red = found[0, "red"]
    assert (red["parsed"], red["given"], red["asked"], red["boxes"]) == (1, 0, True, 2)
    assert red["box_score"] == single(0.4)
    assert (red["own_score"], red["other_score"], red["other_tag"]) == (0.75, single(0.1), "blue")
    assert (red["distance"], red["distance_rank"]) == (0.5, 0.5)
    blue = found[0, "blue"]
    assert blue["distance"] == single(np.hypot(0.5, 1.75))
    assert blue["distance_rank"] == 15 / 16
    green = found[0, "green"]
    assert (green["asked"], green["boxes"], green["box_score"], green["distance"]) == (True, 0, None, None)
    assert {tag: r["kind"] for (_, tag), r in found.items()} == dict.fromkeys(
        ("red", "blue", "green", "purple"), "object"
    ) | {"tidy": "attribute"}


@pytest.mark.parametrize(
    ("policy", "verdicts"),
    [
        (
            Policy(rule="paper"),
            {
                "red": ("dropped", "contradiction"),
                "blue": ("dropped", "outlier"),
                "green": ("kept", "no_box"),
                "purple": ("kept", "given"),
            },
        ),
        (
            Policy(rule="adaptive"),
            {
                "red": ("kept", "doubtful"),
                "blue": ("kept", "doubtful"),
                "green": ("uncertain", "no_box"),
                "purple": ("kept", "given"),
            },
        ),
        (
            Policy(rule="adaptive", trust_given=False, adaptive={"weak_box": 0.35, "outlier_rank": 0.4}),
            {
                "red": ("dropped", "outlier"),
                "blue": ("dropped", "weak_box"),
                "green": ("uncertain", "no_box"),
                "purple": ("kept", "not_localized"),
            },
        ),
    ],
    ids=["paper", "adaptive", "adaptive with other constants"],
)
def test_verdicts_of_a_case_made_by_hand(policy, verdicts):
    _, found = cleaned(policy)
    assert {tag: (r["verdict"], r["rule"]) for (_, tag), r in found.items() if tag in verdicts} == verdicts


def test_all_living_rows_are_counted_and_their_splits_noted():
    output, _ = cleaned(Policy())
    header = parts.make_header(parts.MadeBy("clean", 1, "p", "f", {}, {}), output, by_hand().rows)
    assert header.counts.of("example") == {"in": 3, "out": 3, "dropped": 0, "dead": 0}
    assert output.notes == {"splits": {"train": 2, "val": 1}}


class TestDistance:
    def distance(self, tag, embedding):
        return Clusters(clusters()).distance(tag, list(embedding))

    @pytest.mark.parametrize(
        ("embedding", "expected"),
        [
            ((1, 0), (0.0, 0.0)),
            ((1, 0.25), (0.25, 0.25)),
            ((1, 0.875), (0.875, 0.875)),
            ((9, 0), (8.0, 1.0)),
        ],
        ids=["at the centre", "as far as another", "the farthest", "farther than all"],
    )
    def test_the_rank_is_the_share_of_regions_that_lie_nearer(self, embedding, expected):
        assert self.distance("red", embedding) == expected

    @pytest.mark.parametrize("tag", ["green", "nowhere"])
    def test_a_tag_without_clusters_has_no_distance(self, tag):
        assert self.distance(tag, (1, 0)) == (None, None)

    def test_without_a_cluster_stage_there_is_no_distance(self):
        assert Clusters(None).distance("red", [1.0, 0.0]) == (None, None)

    @pytest.mark.parametrize("policy", [Policy(rule="paper"), Policy(rule="adaptive")], ids=lambda p: p.rule)
    def test_the_farthest_of_ten_is_not_an_outlier(self, policy):
        sample = np.random.default_rng(3).normal(size=(10, 16)).astype(np.float16).astype(np.float32)
        found = Clusters(pa.Table.from_pylist([fit("a", sample, 10, ClusterConfig(), 1)], cluster.SCHEMA))
        ranks = sorted(found.distance("a", vector.tolist())[1] for vector in sample)
        assert ranks == [single(place / 10) for place in range(10)]
        seen = Evidence(parsed=1, asked=True, boxes=1, box_score=0.3, distance_rank=ranks[-1])
        assert decide(seen, policy).verdict == "kept"

    def test_regions_that_all_look_the_same_are_no_outliers(self):
        vector = np.random.default_rng(0).normal(size=64).astype(np.float16).astype(np.float32)
        row = fit("a", np.tile(vector, (50, 1)), 50, ClusterConfig(), 1)
        found = Clusters(pa.Table.from_pylist([row], cluster.SCHEMA))
        assert found.distance("a", vector.tolist())[1] == 0
        assert found.distance("a", (vector + 1).tolist())[1] == 1

    @given(st.integers(10, 300), st.integers(0, 1_000))
    def test_a_sampled_region_has_the_rank_of_its_distance(self, count, seed):
        sample = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float16).astype(np.float32)
        row = fit("a", sample, count, ClusterConfig(), 1)
        found = Clusters(pa.Table.from_pylist([row], cluster.SCHEMA))
        measured = [found.distance("a", vector.tolist()) for vector in sample]
        distances = np.array([distance for distance, _ in measured])
        ranks = np.array([rank for _, rank in measured])
        assert all(single(value) == value for pair in measured for value in pair)
        nearer = (distances[None, :] < distances[:, None]).sum(axis=1)
        assert (ranks == (nearer / count).astype(np.float32)).all()
        # What the rule `paper` is named after: the farthest tenth, less the region at its border.
        outliers = [decide(Evidence(parsed=1, asked=True, boxes=1, distance_rank=r), PAPER) for r in ranks]
        assert sum(d.rule == "outlier" for d in outliers) == (nearer > count - count / 10).sum()


PAPER = Policy(rule="paper")
score = st.none() | st.floats(0, 1, width=32)


@given(st.data(), st.sampled_from(["paper", "adaptive"]))
def test_a_trainer_decides_the_stored_evidence_as_clean_did(data, rule):
    evidence = Evidence(
        given=data.draw(st.integers(0, 1)),
        parsed=data.draw(st.integers(0, 2)),
        tagger=data.draw(score),
        asked=True,
        boxes=1,
        box_score=data.draw(st.floats(0, 1, width=32)),
        **{name: data.draw(score) for name in ("own_score", "other_score", "region_score", "distance_rank")},
    )
    policy = Policy(rule=rule)
    decision = decide(evidence, policy)
    record = {"row": 0, "tag": "red", "kind": "object", "other_tag": None, **vars(evidence), **vars(decision)}
    read = {
        "ingest": ingest_part(example(0)),
        "localize": part("localize", localize.SCHEMA, [box(0, "red", 0, evidence.box_score)]),
        "clean": part("clean", SCHEMA, [record], examples=1),
    }
    (tag,) = json.loads(json.dumps(make_sample(Inputs("p", read, {}, ""), 0)))["tags"]
    stored = SampleTag.model_validate(tag)
    assert evidence_of(stored) == evidence
    assert decide(evidence_of(stored), policy) == decision
    assert (stored.verdict, stored.rule, stored.basis) == (decision.verdict, decision.rule, decision.basis)


def test_the_whole_way_over_real_squares(tmp_path):
    bench = Bench(tmp_path / "run", part_size=6)
    bench.ingest(write_squares(tmp_path / "a.tar", 18))
    bench.run(parse.Parse(parse.ParseConfig(), bench.shared, bench.vocabulary))
    bench.run(TagStage(TagConfig(model="square_models:SquareTagger"), bench.shared))
    bench.candidates(Asked(tagger=SquareTagger.classes, localizer=True))
    config = localize.LocalizeConfig(model="square_models:SquareLocalizer")
    bench.run(localize.Localize(config, bench.shared))
    config = embed.EmbedConfig(model="square_models:SquareEmbedder")
    bench.run(embed.Embed(config, bench.shared, None))
    stage = Cluster(ClusterConfig(min_regions=2), bench.shared)
    bench.run(stage)
    names = files.list_names(bench.uri("cluster"))
    tables = [parquet.read_table(files.join(bench.uri("cluster"), n)) for n in names if n.startswith(BUCKET)]
    files.create_bytes(
        files.join(bench.uri("cluster"), "clusters.parquet"), parquet.table_bytes(stage.merge(tables))
    )
    for made, name in zip(bench.run(Clean(CleanConfig(), bench.shared)), bench.names, strict=True):
        for record in bench.part("ingest", name).records:
            tags = made.of_row(record["row"])
            assert sorted(t["tag"] for t in tags) == sorted(json.loads(record["meta"])["truth"])
            assert {t["verdict"] for t in tags} == {"kept"}
            assert all(t["distance"] is not None for t in tags)
    decided = [r for n in bench.names for r in bench.part("clean", n).records]
    table = parquet.read_table(files.join(bench.uri("cluster"), "clusters.parquet")).to_pylist()
    for row in table:  # nothing is left out of so small a sample: every region is in it
        of_tag = [r for r in decided if r["tag"] == row["tag"]]
        distances = sorted(r["distance"] for r in of_tag)
        assert row["distances"] == distances
        shares = [single(sum(d < r["distance"] for d in distances) / len(distances)) for r in of_tag]
        assert [r["distance_rank"] for r in of_tag] == shares


def test_what_the_sources_say_comes_from_the_candidates():
    said = {"given": 2, "parsed": 3, "generated": 4, "tagger": 0.5}
    record = {"row": 0, "tag": "no word", "kind": "scene", **said, "prompts": [], "classes": ["x"]}
    removed = record | {"row": 1}
    read = {
        "ingest": ingest_part(example(0), example(1)),
        "candidates": part("candidates", candidates.SCHEMA, [record, removed]),
    }
    stage = Clean(CleanConfig(), shared())
    output = stage.process(Inputs("p", read, {}, "", bitmaps.of([1])))
    (found,) = output.table.to_pylist()
    assert {name: found[name] for name in ("row", "tag", "kind", *said)} == {
        "row": 0,
        "tag": "no word",
        "kind": "scene",
        **said,
    }
    assert (output.examples, output.notes) == (1, {"splits": {"train": 1}})


def test_the_policy_is_the_spec():
    def spec(policy=None, **changes):
        return Clean(CleanConfig(policy=policy or Policy()), shared(**changes)).spec

    assert spec() == spec(threads=7) == {"config": {}}
    assert spec(Policy(rule="paper")) != spec()
    assert json.loads(json.dumps(spec())) == spec()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({}, {}),
        ({"rule": "adaptive"}, {}),
        ({"paper": {"outlier_fraction": 0.5}}, {}),
        ({"rule": "paper"}, {"rule": "paper"}),
        ({"rule": "paper", "adaptive": {"agreeing": 7}}, {"rule": "paper"}),
        (
            {"rule": "paper", "paper": {"outlier_fraction": 0.5}},
            {"rule": "paper", "paper": {"outlier_fraction": 0.5}},
        ),
        ({"adaptive": {"agreeing": 7, "weak_box": 0.15}}, {"adaptive": {"agreeing": 7}}),
        ({"trust_given": False, "tagger_threshold": 0.65}, {"trust_given": False}),
        ({"unchecked_threshold": 0.9}, {"unchecked_threshold": 0.9}),
    ],
    ids=str,
)
def test_of_a_policy_only_what_decides_verdicts_is_the_spec(policy, said):
    spec = Clean(CleanConfig(policy=policy), shared()).spec
    assert spec == {"config": {"policy": said} if said else {}}
    assert Policy(**policy).in_force() == said


@given(st.sampled_from(["paper", "adaptive"]), st.data())
def test_constants_of_another_rule_decide_no_verdict(rule, data):
    other = {"paper": "adaptive", "adaptive": "paper"}[rule]
    share = st.floats(0, 1)
    names = {
        "paper": ["outlier_fraction", "region_threshold"],
        "adaptive": ["weak_box", "strong_box", "margin"],
    }
    constants = {name: data.draw(share) for name in names[other]}
    one, two = Policy(rule=rule), Policy(rule=rule, **{other: constants})
    assert one.in_force() == two.in_force()
    evidence = Evidence(
        parsed=data.draw(st.integers(0, 2)),
        asked=True,
        boxes=1,
        **{name: data.draw(share) for name in ("box_score", "own_score", "other_score", "region_score")},
        distance_rank=data.draw(share),
    )
    assert decide(evidence, one) == decide(evidence, two)
