import json
from dataclasses import asdict, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmill.tag_system.decisions import Evidence, Policy, decide
from tagmill.tag_system.sample_tags import evidence_of, short, tag_record
from tagmill.tag_system.shard_contract import SampleTag

quick = settings(deadline=None, max_examples=150, database=None)
single = st.floats(width=32, allow_nan=False, allow_infinity=False)
share = st.floats(0, 1, width=32)
maybe = st.none() | share
counts = st.integers(0, 9)
boxes = st.lists(st.lists(share, min_size=5, max_size=5), max_size=3)


@quick
@given(single)
def test_short_numbers_are_the_same_float32(value):
    assert np.float32(short(value)) == np.float32(value)
    if abs(value) < 1e8:  # of larger ones Python writes the zeros, which may be more
        assert len(repr(short(value))) <= len(repr(value))


@st.composite
def seen(draw):
    """Evidence as the stages gather it, and the boxes that it counts."""
    evidence = Evidence(draw(counts), draw(counts), draw(counts), draw(maybe), asked=draw(st.booleans()))
    if not evidence.asked or not (found := draw(boxes)):
        return evidence, []
    looks = {
        name: draw(maybe)
        for name in ("own_score", "other_score", "region_score", "distance", "distance_rank")
    }
    return replace(evidence, boxes=len(found), box_score=found[0][4], **looks), found


def row(evidence, decision, **changes):
    """A row of clean's table."""
    more = dict.fromkeys(("probe", "other_tag", "presence", "presence_model", "review", "implied_by"))
    return {"tag": "a", "kind": "object"} | asdict(evidence) | asdict(decision) | more | changes


@quick
@given(seen(), st.sampled_from(["paper", "adaptive"]))
def test_evidence_comes_back_from_json_to_the_bit_and_is_decided_the_same(case, rule):
    (evidence, found), policy = case, Policy(rule=rule)
    decision = decide(evidence, policy)
    back = SampleTag.model_validate_json(json.dumps(tag_record(row(evidence, decision), found)))
    assert asdict(evidence_of(back)) == asdict(evidence)
    assert decide(evidence_of(back), policy) == decision
    assert (back.verdict, back.rule, back.basis) == (decision.verdict, decision.rule, decision.basis)


def test_each_model_has_an_entry_of_its_own_and_what_is_null_is_left_out():
    evidence = Evidence(
        parsed=2, tagger=0.5, asked=True, boxes=1, box_score=0.75, own_score=0.25, distance_rank=0.0
    )
    decided = row(
        evidence,
        decide(evidence, Policy()),
        other_tag="b",
        probe=1,
        presence=0.125,
        presence_model="presence",
        review="yes",
        implied_by="c",
    )
    assert tag_record(decided, [[1.0, 2.0, 3.5, 4.0, 0.75]]) == {
        "tag": "a",
        "kind": "object",
        "verdict": "kept",
        "rule": "agreed",
        "basis": "captions",
        "sources": {"parsed": 2, "probe": 1},
        "evidence": [
            {"model": "tag", "score": 0.5},
            {"model": "localize", "boxes": [[1.0, 2.0, 3.5, 4.0, 0.75]]},
            {"model": "embed", "own_score": 0.25, "distance_rank": 0.0, "other_tag": "b"},
            {"model": "presence", "presence": 0.125},
        ],
        "review": "yes",
        "implied_by": "c",
    }


def test_asked_in_vain_and_never_asked_are_told_apart():
    for asked, entries in ((True, [{"model": "localize", "boxes": []}]), (False, [])):
        evidence = Evidence(parsed=1, asked=asked)
        record = tag_record(row(evidence, decide(evidence, Policy())), [])
        assert record["evidence"] == entries
        assert evidence_of(SampleTag.model_validate(record)) == evidence
