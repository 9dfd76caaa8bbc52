"""Loss of a Grounding DINO that is trained from nothing.

The loss of transformers (5.x) takes the first stage's boxes detached from what made them, so that
the layers which propose boxes never learn. Here every place of the image is trained as a proposal,
several places a box, and every decoder layer one query a box, as in DETR (arXiv 2005.12872).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # has no types
from torch import Tensor
from torch.nn.functional import logsigmoid

CLASS, CORNERS, OVERLAP = 2.0, 5.0, 2.0
"""Weights of the three terms, in the loss and in the cost of a match (DINO, arXiv 2203.03605)."""

ALPHA, GAMMA = 0.25, 2.0
"""Weight of positives, and exponent, of the focal loss (arXiv 1708.02002)."""

PLACES = 4
"""Places of the image that learn to propose the same box."""

Match: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Indices of images, of queries and of boxes, all of one length: which query shall find which box."""


@dataclass(frozen=True)
class Targets:
    """What n texts should find in their images; k is the largest number of boxes of an image.

    `boxes` (n, k, 4): centre, width and height as fractions of the image; `present` (n, k) bool:
    which rows of `boxes` hold one; `tokens` (n, k, t) bool: the tokens of each box's tag; `text`
    (n, t) bool: tokens that are no padding.
    """

    boxes: Tensor
    present: Tensor
    tokens: Tensor
    text: Tensor


def detection_loss(output: Any, stages: list[tuple[Tensor, Tensor]], targets: Targets) -> Tensor:
    """Add up the losses of the proposals and of the decoder's layers.

    `output`: the answer of GroundingDinoForObjectDetection; `stages`: logits (n, q, t) and boxes
    (n, q, 4) of each of its decoder layers.
    """
    # Proposals that leave the image have infinite coordinates.
    proposals = output.enc_outputs_coord_logits.float().clamp(-10, 10).sigmoid()
    length = targets.text.shape[1]
    logits = output.enc_outputs_class[..., :length].float()
    total = _stage_loss(logits, proposals, targets, _nearest(_costs(logits, proposals, targets), targets))
    for stage_logits, boxes in stages:
        logits = stage_logits[..., :length].float()
        total = total + _stage_loss(
            logits, boxes, targets, _one_to_one(_costs(logits, boxes, targets), targets)
        )
    return total


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Measure IoU and generalized IoU (arXiv 1902.09630) of boxes (..., 4) given by centre and size."""
    low, high = a[..., :2] - a[..., 2:] / 2, a[..., :2] + a[..., 2:] / 2
    other_low, other_high = b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2
    shared = (torch.minimum(high, other_high) - torch.maximum(low, other_low)).clamp(min=0).prod(-1)
    hull = (torch.maximum(high, other_high) - torch.minimum(low, other_low)).prod(-1).clamp(min=1e-9)
    union = (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared).clamp(min=1e-9)
    return shared / union, shared / union - (hull - union) / hull


def _focal(logits: Tensor, positive: bool) -> Tensor:
    """Focal loss of each logit if it should be high (`positive`) or low."""
    weight = ALPHA if positive else 1 - ALPHA
    sign = 1 if positive else -1
    return -weight * (-sign * logits).sigmoid() ** GAMMA * logsigmoid(sign * logits)


@torch.no_grad()
def _costs(logits: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
    """Cost of each match, (n, q, k); infinite for rows that hold no box."""
    logits = logits.masked_fill(~targets.text[:, None], 0)
    tokens = targets.tokens.float() / targets.tokens.sum(-1, keepdim=True).clamp(min=1)
    of_class = (_focal(logits, True) - _focal(logits, False)) @ tokens.transpose(1, 2)
    distance = torch.cdist(boxes, targets.boxes, p=1)
    _, overlaps = overlap(boxes[:, :, None], targets.boxes[:, None])
    costs = CLASS * of_class + CORNERS * distance - OVERLAP * overlaps
    return costs.masked_fill(~targets.present[:, None], torch.inf)


def _nearest(costs: Tensor, targets: Targets) -> Match:
    """Match each box with the places of lowest cost; a place wanted twice goes to its cheaper box."""
    limit = costs.topk(PLACES, dim=1, largest=False).values[:, -1:]
    chosen = (costs <= limit) & (costs == costs.amin(2, keepdim=True)) & targets.present[:, None]
    image, place, box = chosen.nonzero(as_tuple=True)
    return image, place, box


def _one_to_one(costs: Tensor, targets: Targets) -> Match:
    """Match each box with one query so that the sum of costs is lowest."""
    parts = []
    for image, (cost, count) in enumerate(zip(costs.numpy(), targets.present.sum(1).tolist(), strict=True)):
        query, box = linear_sum_assignment(cost[:, :count])
        parts.append(torch.tensor([[image] * len(query), query.tolist(), box.tolist()], dtype=torch.long))
    image_index, query_index, box_index = torch.cat(parts, 1)
    return image_index, query_index, box_index


def _stage_loss(logits: Tensor, boxes: Tensor, targets: Targets, match: Match) -> Tensor:
    image, query, box = match
    wanted = torch.zeros_like(logits, dtype=torch.bool)
    wanted[image, query] = targets.tokens[image, box]
    logits = logits.masked_fill(~targets.text[:, None], -torch.inf).clamp(min=-50)
    of_class = torch.where(wanted, _focal(logits, True), _focal(logits, False)).sum()
    found, true = boxes[image, query], targets.boxes[image, box]
    _, overlaps = overlap(found, true)
    of_boxes = CORNERS * (found - true).abs().sum() + OVERLAP * (1 - overlaps).sum()
    return (CLASS * of_class + of_boxes) / max(1, len(image))
