"""From pixels to what RAM models take: one square size, whatever the proportions, and normalised."""

import numpy as np
import PIL.Image

from tagmill.models.base import Floats, Image
from tagmill.models.ram.config import RamConfig

RESAMPLING = {
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}


def prepare(image: Image, config: RamConfig) -> Floats:
    """Resize one RGB image and normalise it by channel: float32 (3, size, size)."""
    size = (config.image_size, config.image_size)
    resized = PIL.Image.fromarray(image).resize(size, RESAMPLING[config.resize])
    pixels = np.asarray(resized, np.float32) / 255
    normal = (pixels - np.asarray(config.mean, np.float32)) / np.asarray(config.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))
