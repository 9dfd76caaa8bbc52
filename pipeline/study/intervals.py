"""Intervals of shares that were counted."""

from math import sqrt

Z95 = 1.959964
"""Standard deviations that hold 95 % of a normal distribution around its mean."""


def wilson(count: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Give Wilson's score interval (JASA 22, 1927) of a share: `count` of `total` independent draws.

    Of no draw it is 0 to 1.
    """
    if not total:
        return 0.0, 1.0
    share, weight = count / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * sqrt(share * (1 - share) / total + weight / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)
