"""The tables of `engine_effect.py`: means with their spread over seeds, intervals of paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from effect_arms import ARMS
from scipy import stats

MEASURES = {"map": "all things", "map_rare": "rarely named"}

PAIRS = (
    ("tagger", "parsed"),
    ("bootstrap", "parsed"),
    ("eager", "tagger"),
    ("paper", "tagger"),
    ("adaptive", "tagger"),
    ("adaptive", "eager"),
    ("adaptive", "paper"),
    ("adaptive", "truth"),
)

Figures = Mapping[str, Sequence[float]]
"""Of each arm a figure a seed, in the same order of seeds."""


@dataclass(frozen=True)
class Estimate:
    """A mean with the limits of its 95 % interval (Student's t) and the standard deviation over seeds."""

    mean: float
    low: float
    high: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Estimate from one value a seed, at least two."""
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
        return cls(mean, mean - half, mean + half, deviation)

    @property
    def open(self) -> bool:
        """Tell whether the interval holds 0."""
        return self.low <= 0 <= self.high


def arms_table(figures: Mapping[str, Figures], quality: Mapping[str, tuple[float, float]]) -> list[str]:
    """Tabulate the arms: precision and recall of the labels, the measures with their deviation."""
    head = ["learned from", "precision", "recall", *(f"mAP, {name}" for name in MEASURES.values())]
    rows = [f"| {' | '.join(head)} |", "|---|" + "---|" * (len(head) - 1)]
    for arm, name in ARMS.items():
        cells = [name, *(f"{value:.3f}" for value in quality[arm])]
        for measure in MEASURES:
            found = Estimate.of(figures[measure][arm])
            cells.append(f"{found.mean:.4f} ± {found.deviation:.4f}")
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def differences(figures: Mapping[str, Figures]) -> dict[str, dict[str, Estimate]]:
    """Estimate the paired differences of each measure, by the name of the pair."""
    return {
        measure: {
            f"{one} - {other}": Estimate.of(np.subtract(found[one], found[other]).tolist())
            for one, other in PAIRS
        }
        for measure, found in figures.items()
    }


def pairs_table(figures: Mapping[str, Figures]) -> list[str]:
    """Tabulate the differences with their intervals, in points of mAP (hundredths)."""
    found = differences(figures)
    rows = [f"| difference in points | {' | '.join(MEASURES.values())} |", "|---|" + "---|" * len(MEASURES)]
    for one, other in PAIRS:
        cells = [_interval(found[measure][f"{one} - {other}"]) for measure in MEASURES]
        rows.append(f"| `{one}` - `{other}` | {' | '.join(cells)} |")
    return rows


def shares(figures: Mapping[str, Figures]) -> dict[str, dict[str, Estimate]]:
    """Estimate what share of the truth's mAP each arm reaches."""
    return {
        measure: {
            arm: Estimate.of(np.divide(found[arm], found["truth"]).tolist()) for arm in ARMS if arm != "truth"
        }
        for measure, found in figures.items()
    }


def _interval(found: Estimate) -> str:
    mean, low, high = (100 * value for value in (found.mean, found.low, found.high))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f}{'; holds 0' if found.open else ''})"
