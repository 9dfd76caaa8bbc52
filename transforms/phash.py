"""A perceptual hash of 64 bits: near for pictures that look alike, whatever their size and compression."""

import numpy as np
from PIL import Image as pillow

VERSION = 1
"""A number to raise when the same picture gives another hash: stages that compare hashes depend on it."""

GRID, LOW = 32, 8
"""The picture is seen as GRID x GRID grey levels, of which the LOW x LOW lowest frequencies count."""

_COSINES = np.cos(np.pi / GRID * np.outer(np.arange(LOW), np.arange(GRID) + 0.5))
_WAVES = np.round(4096 * _COSINES).astype(np.int64)
"""The first rows of a DCT-II, in whole numbers: their sums have the same bits on every machine."""


def phash(grey: pillow.Image) -> int:
    """Hash a picture of mode L and any size: a bit for each low frequency, set where it is over their median.

    Two hashes are compared by how many bits differ: a few for one picture saved twice, about 32 for
    pictures that have nothing to do with each other. An even picture has no bit but the first.
    """
    small = grey.resize((GRID, GRID), pillow.Resampling.BILINEAR, reducing_gap=2.0)
    waves = _WAVES @ np.asarray(small, np.int64) @ _WAVES.T
    return int.from_bytes(np.packbits(waves > np.median(waves)).tobytes())
