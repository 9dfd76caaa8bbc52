"""From what a Grounding DINO answers to the boxes of tags: what `GroundingDino` does with torch, by NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagmill.models.base import Boxes, Floats
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.prompts import Text


def check_options(floor: float, span: str, iou: float, tags_a_text: int | None) -> None:
    """Raise ConfigError for options out of range that say how boxes are made."""
    if span not in ("max", "mean"):
        raise ConfigError(f"span must be max or mean, got {span!r}")
    if not 0 <= floor < 1 or not 0 < iou <= 1:
        raise ConfigError(f"box_floor must be in [0, 1) and nms_iou in (0, 1], got {floor} and {iou}")
    if tags_a_text is not None and tags_a_text < 1:
        raise ConfigError("tags_a_text must be at least 1")


def decode(
    text: Text, scores: Floats, boxes: Floats, shape: tuple[int, int], floor: float, span: str, iou: float
) -> Boxes:
    """Reduce the answer to one text to its tags, and keep the good boxes.

    Args:
        text: The text that was asked.
        scores: Of each query and token, (queries, tokens), in 0..1.
        boxes: Of each query, (queries, 4): centre, width and height as fractions of the image.
        shape: Height and width of the image in pixels.
        floor: Scores at or below it are dropped.
        span: How the tokens of a tag make its score, "max" or "mean".
        iou: Of two boxes of one tag that overlap more, the better stays.
    """
    limits = np.asarray([shape[1], shape[0]] * 2, np.float32)
    corners = _corners(boxes) * limits
    corners = np.minimum(np.maximum(corners, np.float32(0)), limits)
    visible = (corners[:, 2:] - corners[:, :2] >= 1).all(axis=1)
    by_tag = _by_tag(text, scores, span)
    query, tag = np.nonzero((by_tag > floor) & visible[:, None])
    corners, found = corners[query], by_tag[query, tag]
    every = [_suppress(corners, found, np.flatnonzero(tag == one), iou) for one in np.unique(tag)]
    best = np.concatenate([np.zeros(0, np.int64), *every])
    return Boxes(np.asarray(text.tags, np.int64)[tag[best]], corners[best], found[best])


def _corners(boxes: Floats) -> Floats:
    half = np.float32(0.5) * boxes[:, 2:]
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _by_tag(text: Text, scores: Floats, span: str) -> Floats:
    """Give each query's score of each tag: (queries, tags)."""
    owners = np.asarray(text.owners)
    own = scores[:, text.positions]
    starts = np.flatnonzero(np.diff(owners, prepend=-1))  # the tokens of a tag lie together
    if span == "max":
        return np.maximum.reduceat(own, starts, axis=1)
    return np.asarray(np.add.reduceat(own, starts, axis=1) / np.bincount(owners), np.float32)


def _suppress(corners: Floats, scores: Floats, some: NDArray[Any], iou: float) -> NDArray[Any]:
    """Choose among the boxes at some places, the better first, those that overlap no better one too much."""
    order = some[np.argsort(-scores[some], kind="stable")]
    one = corners[order].astype(np.float64)
    low, high = one[:, :2], one[:, 2:]
    area = (high - low).prod(axis=1)
    common = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).clip(0).prod(axis=2)
    over = common / (area[:, None] + area - common) > iou
    alive = np.ones(len(order), bool)
    for place in range(len(order)):
        if alive[place]:
            alive[place + 1 :] &= ~over[place, place + 1 :]
    return order[alive]
