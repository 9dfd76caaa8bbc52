"""Checks a model's answers against its Protocol, so that NaN never becomes evidence.

All raise ValueError, inside the call: the image counts as one that the model failed on.
"""

import numpy as np

from tagmill.models.base import Boxes, Floats

SLACK = 1e-3
"""How far a score may lie beyond 0..1, for models of half precision."""


def check_scores(scores: Floats, count: int) -> None:
    """Check `count` scores in 0..1; NaN is what a model of half precision gives on overflow."""
    if np.shape(scores) != (count,):
        raise ValueError(f"the model gave scores of shape {np.shape(scores)}, expected ({count},)")
    # Not the reverse comparison: NaN compares as false.
    if not ((scores >= -SLACK) & (scores <= 1 + SLACK)).all():
        lowest, highest = np.min(scores), np.max(scores)
        raise ValueError(f"the model gave scores from {lowest} to {highest}, expected 0 to 1")


def check_boxes(found: Boxes, names: int) -> None:
    """Check that boxes have sides and belong to one of `names` names; they may lie beyond the image."""
    count = len(found.scores)
    check_scores(found.scores, count)
    if np.shape(found.tags) != (count,) or np.size(found.boxes) != 4 * count:
        raise ValueError(f"the model gave {count} scores, but other numbers of boxes or names")
    if np.isnan(found.boxes).any():
        raise ValueError("the model gave a box with a side that is not a number")
    if not ((found.tags >= 0) & (found.tags < names)).all():
        raise ValueError(f"the model gave a box to a name that is not among the {names} of the prompt")


def check_presence(scores: Floats, questions: int) -> None:
    """Check a verifier's answers to `questions` questions of one image: in 0..1, or NaN for no answer."""
    if np.shape(scores) != (questions,):
        raise ValueError(f"the model gave answers of shape {np.shape(scores)}, expected ({questions},)")
    given = scores[~np.isnan(scores)]
    check_scores(given, len(given))


def check_vectors(vectors: Floats, count: int) -> None:
    """Check `count` vectors of finite numbers."""
    if len(vectors) != count or np.ndim(vectors) != 2:
        raise ValueError(f"the model gave vectors of shape {np.shape(vectors)} for {count} images")
    if not np.isfinite(vectors).all():
        raise ValueError("the model gave a vector that holds no numbers")


def check_texts(texts: list[str]) -> None:
    """Check that captions are texts."""
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"the model gave a caption of type {type(text).__name__}, not str")
