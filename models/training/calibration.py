"""A threshold for each tag, chosen on one part of the labelled images and checked on the rest.

The aim is the highest F1, or the highest recall at a precision of at least p, and at that recall the
highest precision: nothing is given away that costs no recall. Which images are held out is decided by their
keys, so that it is the same for every model. A tag with few positives in the fitting part gets no threshold
of its own: its best one would be that of a few images. It falls back to the model's own threshold, or else
to the one that reaches the aim best over all tags together.

Intervals are Wilson's at 95 percent; that of F1 is the interval of right / (right + wrong + missed), which
F1 = 2J / (1 + J) turns into one of F1. They hold for one tag, whose images are independent; of 100
tags about 5 lie outside of theirs.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tagmill.models.training.metrics import CUTS, Counts, Ranking, rank
from tagmill.models.training.scores import POSITIVE, UNKNOWN, ScoreStore
from tagmill.tag_system.core.errors import ConfigError

Z = 1.959964
"""Standard deviations that hold 95 percent of a normal distribution."""

NEVER = 1.0
"""The threshold of a tag that should not be predicted, as in the official list."""

USUAL = 0.5
"""The threshold of a model that brings none."""

Reason = Literal["", "few_positives", "unreachable"]
"""Why a tag has no threshold of its own: too few positives, or no threshold reaches the precision."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Aim:
    """What thresholds are for: `precision` None is the highest F1, else the least precision that will do.

    `held_out` is the share of images that are only checked on; a tag needs `min_positives` in the rest.
    """

    precision: float | None = None
    held_out: float = 0.3
    min_positives: int = 10


@dataclass(frozen=True)
class Check:
    """A tag's counts on the images that were held out, and what follows from them."""

    positives: int
    predicted: int
    right: int

    @property
    def precision(self) -> Interval:
        """Interval of the precision; 0 to 1 if nothing is predicted."""
        return wilson(self.right, self.predicted)

    @property
    def recall(self) -> Interval:
        """Interval of the recall."""
        return wilson(self.right, self.positives)

    @property
    def f1(self) -> Interval:
        """Interval of F1."""
        low, high = wilson(self.right, self.positives + self.predicted - self.right)
        return 2 * low / (1 + low), 2 * high / (1 + high)

    @property
    def point(self) -> float | None:
        """F1 itself; None if the tag is neither there nor predicted."""
        total = self.positives + self.predicted
        return 2 * self.right / total if total else None


@dataclass(frozen=True)
class Calibrated:
    """One tag's threshold; `fitted` are the counts it was chosen by, `check` those on the other images.

    `fallback` says why the threshold is not the tag's own, and is empty if it is. `before` are the counts on
    the held-out images by the threshold that the tag had: the model's own, or `USUAL`.
    """

    tag: str
    threshold: float
    fallback: Reason
    fitted: Check
    check: Check
    before: Check


@dataclass(frozen=True)
class Calibration:
    """All thresholds; `shared` is that of all tags together, `images` count fitting and held-out ones.

    `of1` is F1 of all decisions on the held-out images; its interval takes images, and not decisions, as
    independent.
    """

    tags: tuple[Calibrated, ...]
    shared: float
    images: tuple[int, int]
    of1: float
    of1_interval: Interval


def calibrate(
    store: ScoreStore, names: Sequence[str], aim: Aim, own: Sequence[float] | None = None
) -> Calibration:
    """Choose and check a threshold for every tag of a store; `own` are the model's thresholds, if any.

    The store is read twice: the shared threshold is known only after all tags. Raises ConfigError if
    nothing is left to fit on or to check on.
    """
    held = held_out(store.keys, aim.held_out)
    fitting, checking = int((~held).sum()), int(held.sum())
    if not fitting or not checking:
        raise ConfigError(
            f"of {len(held)} images {checking} are held out: take more images, or another --hold-out"
        )
    shared, chosen = _fit(store, held, aim)
    tags, counts = [], np.zeros((2, checking), np.int64)
    for columns in store.columns():
        for offset, (scores, labels) in enumerate(zip(columns.scores, columns.labels, strict=True)):
            place = columns.start + offset
            threshold, reason = chosen[place]
            if reason == "few_positives":
                threshold = shared if own is None else own[place]
            fitted = _count(rank(scores[~held], labels[~held]), threshold)
            rest = rank(scores[held], labels[held])
            before = _count(rest, USUAL if own is None else own[place])
            tags.append(Calibrated(names[place], threshold, reason, fitted, _count(rest, threshold), before))
            predicted, positive = scores[held] >= threshold, labels[held] == POSITIVE
            counts += predicted & positive, (predicted & (labels[held] != UNKNOWN)) + 1 * positive
    return Calibration(tuple(tags), shared, (fitting, checking), *_of_images(2 * counts[0], counts[1]))


def held_out(keys: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Say of each image whether it is held out, by its key alone."""
    drawn = [int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest()) for key in keys]
    return np.asarray(drawn, np.int64) < share * 2**48


def best(ranking: Ranking, aim: Aim) -> float | None:
    """Choose the threshold of one tag; None if none reaches the precision.

    It lies midway between the lowest score that is taken and the next one below.
    """
    if aim.precision is None:
        f1 = 2 * ranking.found / np.maximum(ranking.taken + ranking.positives, 1)
        row = int(f1.argmax())
    else:
        rows = np.flatnonzero((ranking.precision >= aim.precision) & (ranking.found > 0))
        if not len(rows):
            return None
        row = int(np.searchsorted(ranking.found, ranking.found[rows[-1]]))
    score = float(ranking.scores[row])
    below = float(ranking.scores[row + 1]) if row + 1 < len(ranking.scores) else 0.0
    return (score + below) / 2


def wilson(hits: int, trials: int) -> Interval:
    """Wilson's interval of a share; 0 to 1 without trials."""
    if not trials:
        return 0.0, 1.0
    share, spread = hits / trials, Z**2 / trials
    middle = share + spread / 2
    reach = Z * (share * (1 - share) / trials + spread / (4 * trials)) ** 0.5
    return max(0.0, (middle - reach) / (1 + spread)), min(1.0, (middle + reach) / (1 + spread))


def _fit(store: ScoreStore, held: NDArray[np.bool_], aim: Aim) -> tuple[float, list[tuple[float, Reason]]]:
    """Choose all tags' own thresholds, and the shared one, on the images that are not held out."""
    found, taken = np.zeros(len(CUTS), np.int64), np.zeros(len(CUTS), np.int64)
    chosen: list[tuple[float, Reason]] = []
    for columns in store.columns():
        for scores, labels in zip(columns.scores, columns.labels, strict=True):
            ranking = rank(scores[~held], labels[~held])
            pooled = ranking.at_least(CUTS)
            found, taken = found + pooled[0], taken + pooled[1]
            if ranking.positives < aim.min_positives:
                chosen.append((NEVER, "few_positives"))
            else:
                threshold = best(ranking, aim)
                chosen.append((NEVER, "unreachable") if threshold is None else (threshold, ""))
    return _shared(found, taken, aim), chosen


def _shared(found: Counts, taken: Counts, aim: Aim) -> float:
    """Choose the threshold of all tags together among `CUTS`; `NEVER` if none reaches the precision."""
    if aim.precision is None:
        return float(CUTS[(2 * found / np.maximum(taken + found[0], 1)).argmax()])
    rows = np.flatnonzero((found >= aim.precision * taken) & (found > 0))
    if not len(rows):
        return NEVER
    most = rows[found[rows] == found[rows[0]]]
    return float(CUTS[most[taken[most].argmin()]])


def _of_images(part: Counts, whole: Counts) -> tuple[float, Interval]:
    """Give the ratio of two sums over images, and its interval by the variance of the linearised ratio."""
    ratio = float(part.sum() / max(1, whole.sum()))
    reach = Z * float(np.sqrt(((part - ratio * whole) ** 2).sum())) / max(1, int(whole.sum()))
    return ratio, (max(0.0, ratio - reach), min(1.0, ratio + reach))


def _count(ranking: Ranking, threshold: float) -> Check:
    right, predicted = ranking.at_least([threshold])
    return Check(ranking.positives, int(predicted[0]), int(right[0]))
