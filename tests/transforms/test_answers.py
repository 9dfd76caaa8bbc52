import numpy as np
import pytest

from tagmill.models.base import Boxes
from tagmill.transforms import answers

NAN, INF = float("nan"), float("inf")


def boxes(tags=(0,), box=(0, 0, 5, 5), scores=(0.5,)):
    return Boxes(np.array(tags), np.array([box] * len(tags), np.float32), np.array(scores, np.float32))


@pytest.mark.parametrize("scores", [[0, 1], [0.5, 1.0004]])
def test_scores_from_0_to_1_are_taken(scores):
    answers.check_scores(np.array(scores, np.float32), 2)


@pytest.mark.parametrize("scores", [[0.5], [0.5, NAN], [NAN, NAN], [-3, 0], [12.5, 0.1], [0, INF]], ids=str)
def test_other_scores_are_a_failure_of_the_model(scores):
    with pytest.raises(ValueError, match="the model gave scores"):
        answers.check_scores(np.array(scores, np.float32), 2)


def test_a_verifier_may_leave_a_question_open_but_answers_no_other_number():
    answers.check_presence(np.array([0, NAN, 1], np.float32), 3)
    answers.check_presence(np.array([], np.float32), 0)
    for scores, message in [([0.5], "answers of shape"), ([NAN, 1.5], "scores from 1.5"), ([0, INF], "inf")]:
        with pytest.raises(ValueError, match=message):
            answers.check_presence(np.array(scores, np.float32), 2)


def test_boxes_may_lie_beyond_the_image_and_be_none():
    answers.check_boxes(boxes(box=(-9, -9, 1e4, 1e4)), 1, (20, 20))
    answers.check_boxes(boxes((), scores=()), 0, (20, 20))


@pytest.mark.parametrize(
    "found",
    [boxes(box=(0, 0, NAN, 5)), boxes((1,)), boxes((-1,)), boxes(scores=(NAN,)), boxes(scores=(0.5, 0.5))],
    ids=["no number", "no such name", "before the first name", "no score", "more scores than boxes"],
)
def test_other_boxes_are_a_failure_of_the_model(found):
    with pytest.raises(ValueError, match="the model gave"):
        answers.check_boxes(found, 1, (20, 20))


@pytest.mark.parametrize("vectors", [[[1, NAN]], [[1, 0], [0, 1]], [1, 0]], ids=str)
def test_other_vectors_are_a_failure_of_the_model(vectors):
    answers.check_vectors(np.array([[1, 0]], np.float32), 1)
    with pytest.raises(ValueError, match="the model gave"):
        answers.check_vectors(np.array(vectors, np.float32), 1)


def test_a_caption_that_is_no_text_is_a_failure_of_the_model():
    with pytest.raises(ValueError, match="of type NoneType, not str"):
        answers.check_texts(["a dog", None])
