"""Resizing of Swin's relative-position tables to another window, as the published models were.

The method is BEiT's (arXiv 2106.08254): the old offsets are spread out in geometric steps, dense near
zero, and a cubic spline through them is read at the new offsets.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def resize(table: Tensor, window: int) -> Tensor:
    """Resize a table [(2 * old - 1)^2, heads] to [(2 * window - 1)^2, heads]; the dtype stays.

    Raises ValueError if the table is not one of a square window.
    """
    old, new = round(len(table) ** 0.5), 2 * window - 1
    if old**2 != len(table) or old % 2 == 0:
        raise ValueError(f"a table of relative positions of a square window cannot have {len(table)} rows")
    if old == new:
        return table
    weights = _spline(_spread(old // 2, new // 2), np.arange(-(new // 2), new // 2 + 1.0))
    maps = table.double().numpy().T.reshape(-1, old, old)
    resized = weights @ maps @ weights.T
    return torch.from_numpy(resized.reshape(-1, new * new).T.copy()).to(table.dtype)


def _spread(steps: int, reach: int) -> Array:
    """Place `steps` offsets on each side of 0, the first at 1, each gap `ratio` times the one before.

    The ratio is the one in 1.01..1.5 that brings the last offset nearest to `reach` from below.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**steps) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    side = np.cumsum(ratio ** np.arange(steps))
    return np.concatenate([-side[::-1], [0.0], side])


def _spline(at: Array, read: Array) -> Array:
    """Give the matrix [len(read), len(at)] that reads a not-a-knot cubic spline through points `at`.

    Outside of the points the value at the nearest end counts.
    """
    gaps = np.diff(at)
    size = len(at)
    rows, right = np.zeros((size, size)), np.zeros((size, size))
    for i in range(1, size - 1):  # continuous slope at the inner points, for second derivatives
        before, after = gaps[i - 1], gaps[i]
        rows[i, i - 1 : i + 2] = before, 2 * (before + after), after
        right[i, i - 1 : i + 2] = 6 / before, -6 / before - 6 / after, 6 / after
    rows[0, :3] = gaps[1], -gaps[0] - gaps[1], gaps[0]  # the third derivative goes on over the
    rows[-1, -3:] = gaps[-1], -gaps[-1] - gaps[-2], gaps[-2]  # second and the last but one point
    curvature = np.linalg.solve(rows, right)
    read = np.clip(read, at[0], at[-1])
    piece = np.clip(np.searchsorted(at, read, side="right") - 1, 0, size - 2)
    gap, ones = gaps[piece][:, None], np.eye(size)
    b = ((read - at[piece]) / gaps[piece])[:, None]
    a = 1 - b
    bend = (a**3 - a) * curvature[piece] + (b**3 - b) * curvature[piece + 1]
    return np.asarray(a * ones[piece] + b * ones[piece + 1] + bend * gap**2 / 6)
