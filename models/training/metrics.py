"""How well scores find labels: average precision and precision, recall and F1, as RAM's paper counts them.

AP, CP and CR follow the official evaluation to 1e-6: a tag without positives has an AP of 0 and counts in the
mean, and so does one that is never predicted, with a precision of 0. Two things differ on purpose. Equal
scores are one group, so that the order of images cannot change a result (the official sort breaks ties
by chance). Labels that are unknown are left out. CF1, OP, OR and OF1 are not in the official code; they
follow arXiv 1904.03582: C means tags alike, O all decisions together, F1 = 2PR / (P + R).

scikit-learn gives the same AP within 1e-8 (the official code's addend) in 4.6 times the time, and AP, curve
and counts of a tag, which come from one ranking here, in 9.5 times (57,000 images); it is not in the extra
`models`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tagmill.models.base import Floats
from tagmill.models.training.scores import POSITIVE, UNKNOWN, Labels, ScoreStore

AP_EPS, EPS = 1e-8, 1e-9
"""What the official code adds to the denominators of AP, and of precision and recall."""

Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]

RECALLS: Doubles = np.linspace(0, 1, 101)
"""Recalls at which a tag's curve is kept."""

CUTS: Doubles = np.linspace(0, 1, 1001)
"""Thresholds at which all tags together are counted."""


@dataclass(frozen=True)
class Ranking:
    """One tag's known images by falling score, a row for each different score.

    `scores` [S] float32, `found` and `taken` [S]: positives and images down to and with that score.
    """

    scores: Floats
    found: Counts
    taken: Counts

    @property
    def positives(self) -> int:
        """Count the positives."""
        return int(self.found[-1]) if len(self.found) else 0

    @property
    def images(self) -> int:
        """Count the images of which the tag is known."""
        return int(self.taken[-1]) if len(self.taken) else 0

    @property
    def precision(self) -> Doubles:
        """Precision [S] of predicting the tag at and above each score."""
        return self.found / np.maximum(self.taken, 1)

    def average_precision(self) -> float:
        """Mean precision at the positives, not interpolated; 0 without positives."""
        gained = np.diff(self.found, prepend=0)
        return float((gained * self.precision).sum() / (self.positives + AP_EPS))

    def at_least(self, thresholds: ArrayLike) -> tuple[Counts, Counts]:
        """Count positives and images with a score of at least each threshold."""
        rows = np.searchsorted(-self.scores.astype(np.float64), -np.asarray(thresholds), side="right")
        found, taken = (np.concatenate([[0], column]) for column in (self.found, self.taken))
        return found[rows], taken[rows]

    def curve(self) -> tuple[Floats, Floats]:
        """Give precision at each of `RECALLS`, and the highest threshold for it; NaN without positives."""
        if not self.positives:
            nothing = np.full(len(RECALLS), np.nan, np.float32)
            return nothing, nothing
        wanted = np.maximum(np.ceil(RECALLS * self.positives - 1e-9), 1)
        rows = np.searchsorted(self.found, wanted)
        return self.precision[rows].astype(np.float32), self.scores[rows]


def rank(scores: Floats, labels: Labels) -> Ranking:
    """Sort the scores [images] of one tag, without the images where its label is unknown."""
    known = labels != UNKNOWN
    if not known.all():
        scores, labels = scores[known], labels[known]
    order = np.argsort(-scores)
    falling = scores[order]
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    ends = ends[: len(falling)]
    found = np.cumsum(labels[order] == POSITIVE, dtype=np.int64)
    return Ranking(falling[ends], found[ends], ends.astype(np.int64) + 1)


def rankings(store: ScoreStore, budget: int | None = None) -> Iterator[Ranking]:
    """Rank every tag of a store in its order; memory holds some tags' scores at a time."""
    for columns in store.columns() if budget is None else store.columns(budget):
        for scores, labels in zip(columns.scores, columns.labels, strict=True):
            yield rank(scores, labels)


@dataclass(frozen=True)
class TagMetrics:
    """What one tag came to. `images` are those where its label is known; `right` of `predicted` are positive.

    `precision_at` and `threshold_at` [101] float32: its curve at `RECALLS`.
    """

    tag: str
    kind: str
    threshold: float
    images: int
    positives: int
    predicted: int
    right: int
    ap: float
    precision_at: Floats
    threshold_at: Floats

    @property
    def precision(self) -> float:
        """Share of the predicted that is right; 0 if nothing is predicted."""
        return self.right / (self.predicted + EPS)

    @property
    def recall(self) -> float:
        """Share of the positives that is predicted; 0 without positives."""
        return self.right / (self.positives + EPS)

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        return harmonic(self.precision, self.recall)


@dataclass(frozen=True)
class Summary:
    """All metrics as fractions; `without` counts tags without positives, `map_present` leaves them out."""

    tags: int
    without: int
    map: float
    map_present: float
    cp: float
    cr: float
    cf1: float
    op: float
    or_: float
    of1: float


@dataclass(frozen=True)
class Metrics:
    """The metrics of every tag, and the pooled counts of all decisions at `CUTS`."""

    tags: tuple[TagMetrics, ...]
    found: Counts
    taken: Counts

    def summary(self, kind: str | None = None) -> Summary:
        """Average over all tags that anything is known of, or over those of a kind."""
        return summarise([tag for tag in self.tags if tag.images and kind in (None, tag.kind)])

    def present(self) -> Summary:
        """Average over the tags that have positives alone."""
        return summarise([tag for tag in self.tags if tag.positives])

    def micro_curve(self) -> tuple[Doubles, Doubles]:
        """Give recall and precision of all decisions together, where a threshold of `CUTS` predicts any."""
        some = self.taken > 0
        return self.found[some] / max(1, int(self.found[0])), self.found[some] / self.taken[some]

    def macro_curve(self) -> Floats:
        """Average the tags' precision at `RECALLS`, over tags that have positives."""
        curves = [tag.precision_at for tag in self.tags if tag.positives]
        return np.mean(curves, axis=0) if curves else np.full(len(RECALLS), np.nan, np.float32)


def measure(
    store: ScoreStore, names: Sequence[str], thresholds: Sequence[float], kinds: Sequence[str] | None = None
) -> Metrics:
    """Measure every tag of a store; a tag is predicted when its score is at least its threshold."""
    tags, found, taken = [], np.zeros(len(CUTS), np.int64), np.zeros(len(CUTS), np.int64)
    each = zip(names, kinds or [""] * len(names), thresholds, rankings(store), strict=True)
    for name, kind, threshold, ranking in each:
        right, predicted = ranking.at_least([threshold])
        pooled = ranking.at_least(CUTS)
        found, taken = found + pooled[0], taken + pooled[1]
        tags.append(
            TagMetrics(
                name,
                kind,
                threshold,
                ranking.images,
                ranking.positives,
                int(predicted[0]),
                int(right[0]),
                ranking.average_precision(),
                *ranking.curve(),
            )
        )
    return Metrics(tuple(tags), found, taken)


def summarise(tags: Sequence[TagMetrics]) -> Summary:
    """Average metrics of tags; all 0 if there are none."""
    present = [tag.ap for tag in tags if tag.positives]
    right, predicted, positives = (
        sum(getattr(tag, name) for tag in tags) for name in ("right", "predicted", "positives")
    )
    cp, cr = _mean([tag.precision for tag in tags]), _mean([tag.recall for tag in tags])
    op, or_ = right / max(1, predicted), right / max(1, positives)
    return Summary(
        tags=len(tags),
        without=len(tags) - len(present),
        map=_mean([tag.ap for tag in tags]),
        map_present=_mean(present),
        cp=cp,
        cr=cr,
        cf1=harmonic(cp, cr),
        op=op,
        or_=or_,
        of1=harmonic(op, or_),
    )


def harmonic(precision: float, recall: float) -> float:
    """F1; 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
