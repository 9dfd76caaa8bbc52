import operator
import random
import re
from dataclasses import asdict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tagmill.tag_system.decisions import AdaptiveRule, Evidence, Policy, decide
from tagmill.tag_system.reasons import measured, why

scores = st.none() | st.floats(0, 1, width=32)
evidences = st.builds(
    Evidence,
    given=st.integers(0, 1),
    parsed=st.integers(0, 3),
    generated=st.integers(0, 1),
    tagger=scores,
    asked=st.booleans(),
    boxes=st.just(0),
)
looked = st.builds(
    Evidence,
    parsed=st.integers(0, 1),
    tagger=st.floats(0.75, 1, width=32),
    asked=st.just(True),
    boxes=st.integers(1, 3),
    box_score=st.floats(0, 1, width=32),
    own_score=scores,
    other_score=scores,
    region_score=scores,
    distance_rank=scores,
)
COMPARISON = re.compile(r"([\d.]+) (<=|<|>=|>) (?:box |own )?([\d.]+)(?: \+ ([\d.]+))?")


def said(evidence, policy):
    decision = asdict(decide(evidence, policy))
    return why(asdict(evidence) | decision | {"other_tag": "dog"}, policy)


@pytest.mark.parametrize("rule", ["adaptive", "paper"])
@given(evidences | looked)
@example(Evidence(parsed=1, asked=True, boxes=1, box_score=0.3))
def test_what_is_said_holds(rule, evidence):
    text = said(evidence, Policy(rule=rule))
    assert text
    for one, sign, other, more in COMPARISON.findall(text):
        difference = float(one) - float(other) - float(more or 0)
        assert difference < 2e-7 if sign in ("<", "<=") else difference > -2e-7, text


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (Evidence(given=1), "a given label"),
        (Evidence(parsed=1), "not looked for; one caption alone"),
        (Evidence(tagger=0.4), "tagger 0.40 < 0.65"),
        (Evidence(tagger=0.6499), "tagger 0.6499 < 0.65"),
        (Evidence(), "nobody names it, and the tagger does not know it"),
        (Evidence(parsed=1, asked=True), "looked for in vain; one caption alone"),
        (Evidence(parsed=2, asked=True), "2 captions >= 2"),
        (Evidence(parsed=1, asked=True, boxes=1, box_score=0.1), "box 0.10 < 0.15"),
        (Evidence(parsed=1, asked=True, boxes=1, box_score=0.3), "0.15 <= box 0.30 < 0.45"),
        (Evidence(parsed=1, asked=True, boxes=1, box_score=0.9), "box 0.90 >= 0.45"),
        (
            Evidence(parsed=1, asked=True, boxes=1, box_score=0.3, distance_rank=0.98),
            "rank 0.98 > 0.95",
        ),
        (
            Evidence(parsed=1, asked=True, boxes=1, box_score=0.3, own_score=0.2, other_score=0.4),
            "dog 0.40 > own 0.20 + 0.02",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_reason_names_the_number_that_decided(evidence, text):
    assert said(evidence, Policy()) == text


HOLDS = {"<": operator.lt, ">=": operator.ge, ">": operator.gt}


def some_evidence(chance: random.Random) -> Evidence:
    boxes = chance.randint(0, 1)
    region = dict.fromkeys(("box_score", "own_score", "other_score", "region_score", "distance_rank"))
    if boxes:
        region = {name: chance.random() for name in region}
    return Evidence(
        parsed=chance.randint(0, 2),
        tagger=chance.random(),
        asked=chance.random() < 0.8,
        boxes=boxes,
        **region,
    )


@pytest.mark.parametrize("rule", ["adaptive", "paper"])
def test_the_score_that_decided_lies_on_its_side_of_the_constant(rule):
    chance = random.Random(0)
    policy = Policy(rule=rule, adaptive=AdaptiveRule(outlier_rank=0.5, margin=0.3))
    seen = set()
    for _ in range(500):
        evidence = some_evidence(chance)
        decision = decide(evidence, policy)
        row = {**vars(evidence), **vars(decision), "other_tag": "cat"}
        found = measured(row, policy)
        if found:
            seen.add(decision.rule)
            assert HOLDS[found.sign](found.number, found.constant), row
    regions = {
        "adaptive": {"other_tag", "weak_box", "regions_agree", "outlier", "doubtful"},
        "paper": {"outlier", "contradiction"},
    }
    assert seen == {"not_proposed", "not_localized"} | regions[rule]
