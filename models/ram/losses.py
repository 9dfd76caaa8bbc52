"""The losses of RAM models. The asymmetric loss is a sum: it grows with batch size and classes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_negative: float = 7,
    gamma_positive: float = 0,
    clip: float = 0.05,
    eps: float = 1e-8,
    through_focus: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum over all logits of the asymmetric loss (arXiv 2009.14119); targets are 0 or 1.

    `weights`, of the logits' shape, multiply each one's part: 0 where a target is not known.
    `clip` is added to the probability of a negative before it is punished: easy ones cost nothing.
    The focusing weight takes part in the gradient only if `through_focus`.
    """
    positive = logits.sigmoid()
    negative = 1 - positive
    if clip > 0:
        negative = (negative + clip).clamp(max=1)
    chosen = positive * targets + negative * (1 - targets)
    likelihood = targets * positive.clamp(min=eps).log() + (1 - targets) * negative.clamp(min=eps).log()
    gamma = gamma_positive * targets + gamma_negative * (1 - targets)
    focus = (1 - chosen) ** gamma
    loss = likelihood * (focus if through_focus else focus.detach())
    return -(loss if weights is None else loss * weights).sum()


def tagging_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Asymmetric loss of class logits [B, C], with the exponents of the RAM papers."""
    return asymmetric_loss(logits, targets, gamma_negative=7)


def alignment_loss(logits: Tensor, has_caption: Tensor | None = None) -> Tensor:
    """Asymmetric loss of image-text logits [B, B]: each image fits its own text and no other.

    `has_caption` bool [B] is False for a row without text, which then is in no pair.
    """
    own = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)
    pairs = None if has_caption is None else has_caption[:, None] & has_caption
    return asymmetric_loss(logits, own, gamma_negative=4, weights=pairs)


def contrastive_loss(logits: Tensor, fits: Tensor, real: Tensor) -> Tensor:
    """Cross-entropy of what fits a row among all columns (ITC): mean over the rows of logits [R, C].

    `fits` bool [R, C]: the columns that fit a row share its target; a row that fits none counts nowhere.
    `real` bool [C] is False for a column that is left out.
    """
    known = fits.any(1)
    targets = fits / fits.sum(1, keepdim=True).clamp(min=1)
    # A row that does not count sees all columns: nothing infinite may come of it.
    among = logits.masked_fill(~real & known[:, None], -torch.inf).logsumexp(1)
    return ((among - (logits * targets).sum(1)) * known).sum() / known.sum().clamp(min=1)


def matching_loss(logits: Tensor, fits: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of the logits [R] of pairs (ITM): mean over the `valid` ones, 0 without any."""
    losses = F.binary_cross_entropy_with_logits(logits, fits.to(logits.dtype), reduction="none")
    return (losses * valid).sum() / valid.sum().clamp(min=1)


def distillation_loss(tokens: Tensor, features: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean distance (L1) of the first of the tokens [B, 1 + N, D] to unscaled CLIP features [B, D].

    With `valid` bool [B], the mean over those rows alone; 0 if there is none.
    """
    distance = (tokens[:, 0] - features).abs()
    if valid is None:
        return distance.mean()
    return (distance.mean(1) * valid).sum() / valid.sum().clamp(min=1)


def balanced_loss(caption: Tensor, tagging: Tensor, levels: Tensor | None = None) -> Tensor:
    """Add the tagging loss to the caption loss, scaled so that both weigh the same at every step.

    `levels` [2] are the two losses that the scale is of, where others than these, as their means over
    processes. Where nothing was captioned (0) the tagging loss counts as 1, and where nothing was tagged as
    nothing.
    """
    of_caption, of_tagging = (caption, tagging) if levels is None else levels.unbind()
    level = torch.where(of_caption > 0, of_caption, torch.ones_like(of_caption))
    return caption + tagging * (level / of_tagging.clamp(min=torch.finfo(tagging.dtype).tiny)).detach()
