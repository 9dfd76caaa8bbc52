import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tagmill.tag_system.decisions import Evidence, Policy, decide
from tagmill.tag_system.shard_contract import (
    Manifest,
    ManifestShard,
    Sample,
    SampleTag,
    escape,
    evidence_of,
    evidence_record,
    shard_name,
    shorten,
    unescape,
)

quick = settings(deadline=None, max_examples=150, database=None)
whole_text = st.text(st.characters(exclude_categories=["Cs"]))


@quick
@given(whole_text)
def test_any_key_comes_back_from_its_member_name(key):
    member = escape(key)
    assert unescape(member) == key
    assert not set(member) & set("./\\ \0\n")
    assert member.isascii()


@quick
@given(whole_text, whole_text)
def test_two_keys_never_share_a_member_name(a, b):
    assert (escape(a) == escape(b)) == (a == b)


@pytest.mark.parametrize(
    ("key", "member"),
    [
        ("squares/000.a", "squares%2F000%2Ea"),
        ("a%2Fb", "a%252Fb"),
        ("..", "%2E%2E"),
        ("é", "%C3%A9"),
        ("a_b-c~d", "a_b-c~d"),
    ],
)
def test_escape(key, member):
    assert escape(key) == member


single = st.floats(width=32, allow_nan=False, allow_infinity=False)


@quick
@given(single)
def test_short_numbers_are_the_same_float32(value):
    short = shorten(value)
    assert np.float32(short) == np.float32(value)
    assert len(repr(short)) <= len(repr(value))


def test_only_floats_are_shortened():
    value = {"a": [float(np.float32(0.1)), 1, True, None, "x", {"b": float(np.float32(0.3))}]}
    assert shorten(value) == {"a": [0.1, 1, True, None, "x", {"b": 0.3}]}


counts = st.integers(0, 9)
maybe = st.none() | st.floats(0, 1, width=32)
evidences = st.builds(
    Evidence,
    given=counts,
    parsed=counts,
    generated=counts,
    tagger=maybe,
    asked=st.booleans(),
    boxes=counts,
    box_score=maybe,
    own_score=maybe,
    other_score=maybe,
    region_score=maybe,
    distance=maybe,
    distance_rank=maybe,
)


@quick
@given(evidences, st.sampled_from(["paper", "adaptive"]))
def test_evidence_comes_back_from_json_to_the_bit_and_is_judged_the_same(evidence, rule):
    text = json.dumps(
        {"tag": "a", "kind": "b", "verdict": "c", "rule": "d", "evidence": evidence_record(evidence)}
    )
    back = evidence_of(SampleTag.model_validate_json(text))
    assert asdict(back) == asdict(evidence)
    assert decide(back, Policy(rule=rule)) == decide(evidence, Policy(rule=rule))


def test_unknown_evidence_of_a_later_writer_is_passed_over():
    record = {**evidence_record(Evidence(parsed=1)), "moon_phase": 0.5}
    assert evidence_of(SampleTag(tag="a", kind="b", verdict="c", rule="d", evidence=record)) == Evidence(
        parsed=1
    )


SAMPLE = {
    "layout": 1,
    "key": "k",
    "vocabulary": "v",
    "width": 1,
    "height": 1,
    "format": "PNG",
    "sha256": "s",
    "split": "train",
    "captions": [],
    "tags": [],
    "labels": [],
    "meta": {},
}


def test_a_sample_of_a_later_writer_is_read():
    assert Sample.model_validate({**SAMPLE, "more": 1}).key == "k"


@pytest.mark.parametrize("missing", SAMPLE)
def test_a_sample_without_one_of_its_fields_is_refused(missing):
    with pytest.raises(ValidationError, match=missing):
        Sample.model_validate({name: value for name, value in SAMPLE.items() if name != missing})


def test_a_manifest_comes_back_from_json():
    shard = ManifestShard(name=shard_name("val", 3), split="val", examples=1, bytes=2, sha256="s")
    manifest = Manifest(layout=1, vocabulary="v", tags=2, examples={"val": 1}, shards=[shard], made_by={})
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert shard.name == "val-000003"
