import pytest

from tagmill.pipeline.study.evaluation import Score
from tagmill.pipeline.study.tuning import Labelled, tune
from tagmill.tag_system.decisions import Evidence, Policy


def boxed(score: float) -> Evidence:
    return Evidence(parsed=1, asked=True, boxes=1, box_score=score)


SCORES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
DATA = Labelled([boxed(score) for score in SCORES], [score > 0.35 for score in SCORES], missed=1)


def test_a_policy_is_scored_against_the_truth_and_what_was_never_proposed():
    policy = Policy.model_validate({"adaptive": {"weak_box": 0.25}})
    assert DATA.score(policy) == Score(right=3, wrong=1, missed=1)


def test_tuning_finds_the_constant_that_parts_right_from_wrong():
    grid = {"adaptive.weak_box": [0.05, 0.15, 0.35, 0.55], "tagger_threshold": [0.5, 0.9]}
    start = Policy()
    best, reached = tune(DATA, start, grid, lambda score: score.f1)
    assert best.adaptive.weak_box == 0.35
    assert best.tagger_threshold == start.tagger_threshold  # nothing speaks for another
    assert reached == pytest.approx(DATA.score(best).f1) == pytest.approx(6 / 7)


def test_tuning_never_ends_below_where_it_began():
    start = Policy.model_validate({"adaptive": {"weak_box": 0.35}})
    best, reached = tune(DATA, start, {"adaptive.weak_box": [0.9]}, lambda score: score.f1)
    assert best == start
    assert reached == DATA.score(start).f1


def test_an_unknown_constant_is_an_error():
    with pytest.raises(ValueError, match=r"no constant adaptive\.weak"):
        tune(DATA, Policy(), {"adaptive.weak": [0.1]}, lambda score: score.f1)
