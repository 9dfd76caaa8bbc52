from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tagmill.tag_system.decisions import AdaptiveRule, Evidence, PaperRule, Policy, decide

PAPER, ADAPTIVE = Policy(rule="paper"), Policy(rule="adaptive")
NAMED = Evidence(parsed=1, asked=True, boxes=1, box_score=0.3)
TAGGED = replace(NAMED, parsed=0, tagger=0.9)
STRONG = replace(NAMED, box_score=0.45)

CASES = {
    # before any rule
    "a given label": (Evidence(given=1), ADAPTIVE, "kept", "given"),
    "a given label whatever else speaks": (
        replace(NAMED, given=1, box_score=0.01, distance_rank=1.0),
        ADAPTIVE,
        "kept",
        "given",
    ),
    "a label that is not trusted": (
        replace(NAMED, parsed=0, given=1, box_score=0.01),
        Policy(trust_given=False),
        "dropped",
        "weak_box",
    ),
    "an untrusted label names": (Evidence(given=1), Policy(trust_given=False), "kept", "not_localized"),
    "nobody names it": (Evidence(), ADAPTIVE, "dropped", "not_proposed"),
    "the tagger hardly sees it": (Evidence(tagger=0.64), ADAPTIVE, "dropped", "not_proposed"),
    "the tagger at its threshold": (Evidence(tagger=0.65), ADAPTIVE, "kept", "not_localized"),
    "a generated caption names": (Evidence(generated=1, tagger=0.0), PAPER, "kept", "not_localized"),
    "the tagger at another threshold": (
        Evidence(tagger=0.5),
        Policy(tagger_threshold=0.5),
        "kept",
        "not_localized",
    ),
    "the tagger alone, and nothing checks it": (
        Evidence(tagger=0.7),
        Policy(unchecked_threshold=0.75),
        "dropped",
        "not_proposed",
    ),
    "what is checked has its own threshold": (
        Evidence(tagger=0.7, asked=True, boxes=1, box_score=0.9),
        Policy(unchecked_threshold=0.75),
        "kept",
        "regions_agree",
    ),
    "a caption needs no tagger": (
        Evidence(parsed=1),
        Policy(unchecked_threshold=1.0),
        "kept",
        "not_localized",
    ),
    # paper
    "paper: no box": (Evidence(parsed=1, asked=True), PAPER, "kept", "no_box"),
    "paper: at the border of the outliers": (
        replace(NAMED, distance_rank=0.9),
        PAPER,
        "kept",
        "regions_agree",
    ),
    "paper: an outlier": (replace(NAMED, distance_rank=0.91), PAPER, "dropped", "outlier"),
    "paper: at the region threshold": (replace(NAMED, region_score=0.1), PAPER, "kept", "regions_agree"),
    "paper: contradicted": (replace(NAMED, region_score=0.09), PAPER, "dropped", "contradiction"),
    "paper: outlier before contradiction": (
        replace(NAMED, region_score=0.0, distance_rank=1.0),
        PAPER,
        "dropped",
        "outlier",
    ),
    "paper: a weak box is a box": (replace(NAMED, box_score=0.01), PAPER, "kept", "regions_agree"),
    "paper: no share of outliers": (
        replace(NAMED, distance_rank=1.0),
        Policy(rule="paper", paper=PaperRule(outlier_fraction=0)),
        "kept",
        "regions_agree",
    ),
    # adaptive
    "adaptive: named, no box": (Evidence(parsed=1, asked=True), ADAPTIVE, "uncertain", "no_box"),
    "adaptive: tagged, no box": (Evidence(tagger=0.9, asked=True), ADAPTIVE, "dropped", "no_box"),
    "adaptive: a weak box": (replace(NAMED, box_score=0.149), ADAPTIVE, "dropped", "weak_box"),
    "adaptive: at the weak box": (replace(NAMED, box_score=0.15), ADAPTIVE, "kept", "doubtful"),
    "adaptive: another tag": (
        replace(STRONG, own_score=0.2, other_score=0.23),
        ADAPTIVE,
        "dropped",
        "other_tag",
    ),
    "adaptive: another tag within the margin": (
        replace(STRONG, own_score=0.25, other_score=0.265),
        ADAPTIVE,
        "kept",
        "regions_agree",
    ),
    "adaptive: another tag and no own score": (
        replace(STRONG, other_score=0.9),
        ADAPTIVE,
        "kept",
        "regions_agree",
    ),
    "adaptive: a strong outlier": (replace(STRONG, distance_rank=1.0), ADAPTIVE, "kept", "regions_agree"),
    "adaptive: an outlier": (replace(NAMED, distance_rank=0.96), ADAPTIVE, "dropped", "outlier"),
    "adaptive: at the outliers' rank": (replace(NAMED, distance_rank=0.95), ADAPTIVE, "kept", "doubtful"),
    "adaptive: doubtful, tagged": (TAGGED, ADAPTIVE, "uncertain", "doubtful"),
    "adaptive: its own constants": (
        replace(NAMED, box_score=0.3),
        Policy(adaptive=AdaptiveRule(weak_box=0.31)),
        "dropped",
        "weak_box",
    ),
}


@pytest.mark.parametrize(("evidence", "policy", "verdict", "rule"), CASES.values(), ids=CASES)
def test_verdicts(evidence, policy, verdict, rule):
    decision = decide(evidence, policy)
    assert (decision.verdict, decision.rule) == (verdict, rule)


BASES = {
    "a trusted label": (Evidence(given=1, parsed=2), "given"),
    "a box that the rule looked at": (TAGGED, "region"),
    "a box that looks like another tag": (replace(NAMED, own_score=0.2, other_score=0.3), "region"),
    "several captions, whatever the box": (replace(NAMED, parsed=2), "captions"),
    "a caption and a generated one": (Evidence(parsed=1, generated=1), "captions"),
    "one caption, and no box": (Evidence(parsed=1, tagger=0.9, asked=True), "caption"),
    "generated captions alone": (Evidence(generated=2, tagger=0.9), "generated"),
    "the tagger": (Evidence(tagger=0.9), "tagger"),
    "the tagger, and no box": (Evidence(tagger=0.9, asked=True), "tagger"),
    "the tagger, under its threshold": (Evidence(tagger=0.4, asked=True, boxes=1, box_score=0.9), "tagger"),
}


@pytest.mark.parametrize(("evidence", "basis"), BASES.values(), ids=BASES)
def test_a_verdict_says_what_it_rests_on(evidence, basis):
    assert decide(evidence, ADAPTIVE).basis == basis


def test_a_label_that_is_not_trusted_is_worth_a_caption():
    assert decide(Evidence(given=2), Policy(trust_given=False)).basis == "caption"


@pytest.mark.parametrize(("regions", "nearer"), [(5, 4), (10, 8), (10, 9), (20, 16), (1_000, 900)])
def test_a_region_at_the_border_of_the_outliers_is_none(regions, nearer):
    share = (regions - nearer) / regions
    paper = Policy(rule="paper", paper=PaperRule(outlier_fraction=share))
    adaptive = Policy(adaptive=AdaptiveRule(outlier_rank=nearer / regions))
    for place, verdict in ((nearer, "kept"), (nearer + 1, "dropped")):
        stored = float(np.float32(place / regions))
        found = [decide(replace(NAMED, distance_rank=stored), policy) for policy in (paper, adaptive)]
        assert [decision.verdict for decision in found] == [verdict, verdict]


share = st.floats(0, 1, width=32)
maybe = st.none() | share


perhaps = st.booleans()


@st.composite
def evidences(draw, *, found=perhaps):
    """Evidence as the stages can gather it: what belongs to the best box is there only with a box."""
    has_box = draw(found)
    sources = (draw(st.integers(0, 2)) for _ in range(3))
    evidence = Evidence(*sources, tagger=draw(maybe), asked=has_box or draw(st.booleans()))
    if not has_box:
        return evidence
    cosine = st.none() | st.floats(-1, 1, width=32)
    return replace(
        evidence,
        boxes=draw(st.integers(1, 3)),
        box_score=draw(share),
        own_score=draw(cosine),
        other_score=draw(cosine),
        region_score=draw(maybe),
        distance=draw(st.none() | st.floats(0, 2, width=32)),
        distance_rank=draw(maybe),
    )


policies = st.builds(
    Policy,
    rule=st.sampled_from(["paper", "adaptive"]),
    tagger_threshold=share,
    unchecked_threshold=st.none() | share,
    trust_given=st.booleans(),
    paper=st.builds(PaperRule, outlier_fraction=share, region_threshold=share),
    adaptive=st.builds(AdaptiveRule, weak_box=share, strong_box=share, margin=share, outlier_rank=share),
)
quick = settings(deadline=None, max_examples=150, database=None)


@quick
@given(evidences(), policies, st.data())
def test_what_nobody_looked_at_never_speaks_against_a_tag(evidence, policy, data):
    # The tagger's score alone may be all that names a tag, and a box's score says that there is a box.
    names = [f.name for f in fields(Evidence) if f.default is None and f.name not in ("tagger", "box_score")]
    unknown = data.draw(st.sets(st.sampled_from(names)))
    blank = replace(evidence, **dict.fromkeys(unknown))
    if decide(evidence, policy).verdict != "dropped":
        assert decide(blank, policy).verdict != "dropped"


@quick
@given(evidences(found=st.just(True)), policies, share, share)
def test_a_lower_box_score_never_saves_a_tag(evidence, policy, one, other):
    order = ["dropped", "uncertain", "kept"]
    low, high = (
        order.index(decide(replace(evidence, box_score=score), policy).verdict)
        for score in sorted((one, other))
    )
    assert low <= high


@quick
@given(evidences(found=st.just(True)), policies, share, share)
def test_a_farther_region_never_saves_a_tag(evidence, policy, one, other):
    near, far = (replace(evidence, distance_rank=rank) for rank in sorted((one, other)))
    if decide(near, policy).verdict == "dropped":
        assert decide(far, policy).verdict == "dropped"


@quick
@given(evidences(), policies, st.sampled_from(["given", "parsed", "generated"]))
def test_one_more_source_never_hurts(evidence, policy, source):
    order = ["dropped", "uncertain", "kept"]
    before = order.index(decide(evidence, policy).verdict)
    more = replace(evidence, **{source: getattr(evidence, source) + 1})
    assert order.index(decide(more, policy).verdict) >= before


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "best"},
        {"tagger_threshold": 1.1},
        {"adaptive": {"weak_box": -0.1}},
        {"paper": {"outlier": 0.1}},
        {"threshold": 0.5},
    ],
    ids=str,
)
def test_a_wrong_policy_is_refused(changes):
    with pytest.raises(ValidationError):
        Policy.model_validate(changes)
