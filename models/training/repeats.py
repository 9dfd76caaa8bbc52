"""How often a turn shows each sample: repeat factors, rounded by chance so that turns are of one size."""

import hashlib

import numpy as np
from numpy.typing import NDArray

BITS = 16
"""Of a factor's fraction: sums of them are of whole numbers, and so the same on every machine."""


class Repeats:
    """How often a turn shows each sample of a dataset, by its factor >= 1: float32 [samples].

    A turn shows a sample as often as the whole part of its factor says, and once more with the chance of its
    fraction. Which ones that are is drawn for all together: their fractions are laid end to end in a random
    order, and whose fraction reaches a whole number is shown once more (systematic sampling). So a turn
    always has the same size, less than one showing under the sum of the factors. Memory: 4 bytes a sample.

    Attributes:
        size: Showings in a turn.
        most: No sample has more showings in a turn.
    """

    def __init__(self, factors: NDArray[np.float32]) -> None:
        self._factors = factors
        whole, fractions = self._parts()
        self.size = int(whole.sum()) + (int(fractions.sum()) >> BITS)
        self.most = int(whole.max(initial=0)) + 1

    @property
    def digest(self) -> str:
        """Hash the factors."""
        return hashlib.sha256(self._factors.astype("<f4").tobytes()).hexdigest()

    def times(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Round the factors, whose fractions are laid in the order of a permutation: int64 [samples]."""
        times, fractions = self._parts()
        times[order] += np.diff(fractions[order].cumsum() >> BITS, prepend=0)
        return times

    def _parts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split the factors into whole parts, and fractions in units of 2 ** -BITS."""
        parts = np.round(self._factors.astype(np.float64) * (1 << BITS)).astype(np.int64)
        return parts >> BITS, parts & ((1 << BITS) - 1)
