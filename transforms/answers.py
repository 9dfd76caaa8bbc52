"""Checks a model's answers against its Protocol, so that NaN never becomes evidence.

All raise AnswerError, inside the call: the image counts as one that the model failed on.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from tagmill.models.base import Boxes, Floats

SLACK = 1e-3
"""How far a score may lie beyond 0..1, for models of half precision."""

LENGTH_SLACK = 0.02
"""How far the length of a unit vector may be from 1, for models of half precision."""


class AnswerError(ValueError):
    """A model answered what its Protocol does not allow."""


def check_count(answers: Collection[object], count: int) -> None:
    """Check that there is an answer for each of `count` images."""
    try:
        given = len(answers)
    except TypeError as error:
        raise AnswerError(f"the model gave {type(answers).__name__}, not a list of answers") from error
    if given != count:
        raise AnswerError(f"the model gave {given} answers for {count} images")


def check_scores(scores: Floats, count: int) -> None:
    """Check `count` scores in 0..1; NaN is what a model of half precision gives on overflow."""
    scores = _numbers(scores, "scores")
    if np.shape(scores) != (count,):
        raise AnswerError(f"the model gave scores of shape {np.shape(scores)}, expected ({count},)")
    # Not the reverse comparison: NaN compares as false.
    if not ((scores >= -SLACK) & (scores <= 1 + SLACK)).all():
        lowest, highest = np.min(scores), np.max(scores)
        raise AnswerError(f"the model gave scores from {lowest} to {highest}, expected 0 to 1")


def check_boxes(found: Boxes, names: int, size: tuple[int, int]) -> None:
    """Check that boxes have sides in an image of a size (width, height) and belong to one of `names` names.

    They may lie beyond the image, as those of a model that pads it do, but not by more than its own size:
    such coordinates count from somewhere else.
    """
    if not isinstance(found, Boxes):
        raise AnswerError(f"the model gave {type(found).__name__} for an image, not Boxes")
    count = len(found.scores)
    check_scores(found.scores, count)
    boxes, tags = _numbers(found.boxes, "boxes"), _numbers(found.tags, "names of boxes")
    if np.shape(tags) != (count,) or np.size(boxes) != 4 * count:
        raise AnswerError(f"the model gave {count} scores, but other numbers of boxes or names")
    if tags.dtype.kind not in "iu" and count:
        raise AnswerError(f"the model gave names of boxes as {tags.dtype}, not as places in the prompt")
    boxes = boxes.reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise AnswerError("the model gave a box with a side that is not a number")
    for box in boxes[(boxes[:, 2:] < boxes[:, :2]).any(axis=1)]:
        raise AnswerError(f"the model gave the box {box.tolist()}, whose sides are not x1, y1, x2, y2")
    sides = np.array(size)
    for box in boxes[((boxes[:, 2:] < -sides) | (boxes[:, :2] > 2 * sides)).any(axis=1)]:
        raise AnswerError(f"the model gave the box {box.tolist()}, far out of an image of {size} pixels")
    if not ((tags >= 0) & (tags < names)).all():
        raise AnswerError(f"the model gave a box to a name that is not among the {names} of the prompt")


def check_presence(scores: Floats, questions: int) -> None:
    """Check a verifier's answers to `questions` questions of one image: in 0..1, or NaN for no answer."""
    scores = _numbers(scores, "answers")
    if np.shape(scores) != (questions,):
        raise AnswerError(f"the model gave answers of shape {np.shape(scores)}, expected ({questions},)")
    given = scores[~np.isnan(scores)]
    check_scores(given, len(given))


def check_vectors(vectors: Floats, count: int) -> None:
    """Check `count` vectors of finite numbers, none of which is zero."""
    vectors = _numbers(vectors, "vectors")
    if np.ndim(vectors) != 2 or len(vectors) != count:
        raise AnswerError(f"the model gave vectors of shape {np.shape(vectors)} for {count} images")
    if not np.isfinite(vectors).all():
        raise AnswerError("the model gave a vector that holds no numbers")
    if not vectors.any(axis=1).all():
        raise AnswerError("the model gave a vector of zeros")


def check_unit_vectors(vectors: Floats, count: int) -> None:
    """Check `count` vectors of length 1."""
    check_vectors(vectors, count)
    lengths = np.linalg.norm(np.asarray(vectors, np.float64), axis=1)
    for length in lengths[abs(lengths - 1) > LENGTH_SLACK]:
        raise AnswerError(f"the model gave a vector of length {length:.4g}, expected 1")


def check_text_vectors(vectors: Sequence[Floats | None], names: Sequence[str]) -> None:
    """Check that there is a vector of length 1, or None, for each name."""
    if not isinstance(vectors, Sequence | np.ndarray) or len(vectors) != len(names):
        raise AnswerError(f"the model did not give one text vector for each of {len(names)} names")
    for name, vector in zip(names, vectors, strict=True):
        if vector is not None:
            try:
                check_unit_vectors(np.asarray(vector)[None], 1)
            except AnswerError as error:
                raise AnswerError(f"of the text {name!r}: {error}") from error


def check_texts(texts: Sequence[str]) -> None:
    """Check that captions are texts, of characters that a file can hold."""
    for text in texts:
        if not isinstance(text, str):
            raise AnswerError(f"the model gave a caption of type {type(text).__name__}, not str")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise AnswerError(f"the model gave a caption that is not Unicode: {error}") from error


def check_classes(classes: Sequence[str]) -> None:
    """Check that there are class names, and that each is a text. Two classes may have the same name."""
    if isinstance(classes, str) or not len(classes):
        raise AnswerError(f"the model's classes are {classes!r}, expected a list of names")
    for place, name in enumerate(classes):
        if not isinstance(name, str) or not name.strip():
            raise AnswerError(f"the model's class {place} is {name!r}, expected a name")


def _numbers(values: Any, what: str) -> Any:
    try:
        found = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise AnswerError(f"the model gave {what} that are not an array: {error}") from error
    if found.dtype.kind not in "fiu":
        raise AnswerError(f"the model gave {what} of type {found.dtype}, expected numbers")
    return found
