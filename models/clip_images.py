"""What an exported CLIP takes of an image: the steps of open_clip's own preparation, by Pillow and NumPy.

They are checked against open_clip's in tests/models/test_onnx_clip.py, to the last bit.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import PIL.Image
import PIL.ImageOps
from pydantic import Field

from tagmill.models.base import Floats, Image
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError

RESIZE = {"pad": "longest", "squash": "squash", "crop": "shortest"}
"""What open_clip calls each value of `fit`."""

RESAMPLING = {"bilinear": PIL.Image.Resampling.BILINEAR, "bicubic": PIL.Image.Resampling.BICUBIC}

Colour = tuple[float, float, float]


class ClipConfig(Config):
    """What the folder of an exported CLIP says of itself: `config.json`.

    `height` and `width`: of the model's input, in pixels. `resize`: how a checkpoint brings images to it, in
    the words of open_clip; `fill`: the grey of padding, 0..255. `lower`: whether texts are written in small
    letters before they are cut into tokens.
    """

    kind: Literal["clip"]
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    mean: Colour
    std: Colour
    interpolation: Literal["bicubic", "bilinear"]
    resize: Literal["shortest", "longest", "squash"]
    fill: int = Field(ge=0, le=255)
    lower: bool


def prepare(image: Image, config: ClipConfig, fit: str | None) -> Floats:
    """Resize and normalise one image, see `OpenClip.fit`: float32 (3, height, width)."""
    mode = config.resize if fit is None else RESIZE[fit]
    fill = tuple(round(255 * value) for value in config.mean) if fit == "pad" else (config.fill,) * 3
    least = min(config.width, config.height)
    resized = _fitted(thick(PIL.Image.fromarray(image), least), config, mode, fill)
    pixels = np.asarray(resized, np.float32) / 255
    normal = (pixels - np.asarray(config.mean, np.float32)) / np.asarray(config.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def check_fit(fit: str | None) -> None:
    """Raise ConfigError unless there is such a `fit`."""
    if fit is not None and fit not in RESIZE:
        raise ConfigError(f"fit must be one of {', '.join(RESIZE)} or null, got {fit!r}")


def thick(image: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """Widen a side so short that resizing to `side` leaves nothing of it, or far too much of the other."""
    least = -(-max(image.size) // side)
    if min(image.size) >= least:
        return image
    return image.resize((max(image.width, least), max(image.height, least)))


def _fitted(image: PIL.Image.Image, config: ClipConfig, mode: str, fill: Sequence[int]) -> PIL.Image.Image:
    across, down = config.width, config.height
    size = {"longest": _longest, "shortest": _shortest, "squash": _whole}[mode](image, config)
    # Of a shape that is not square, open_clip resizes the short side by its default alone.
    plain = mode == "shortest" and across != down
    resampling = RESAMPLING["bicubic" if plain else config.interpolation]
    resized = image.resize(size, resampling)
    if mode == "longest":
        left, top = (across - resized.width) // 2, (down - resized.height) // 2
        right, bottom = across - resized.width - left, down - resized.height - top
        return PIL.ImageOps.expand(resized, (left, top, right, bottom), tuple(fill))
    left, top = round((resized.width - across) / 2), round((resized.height - down) / 2)
    return resized.crop((left, top, left + across, top + down))


def _whole(image: PIL.Image.Image, config: ClipConfig) -> tuple[int, int]:
    """Give the width and height of the model's input, whatever those of the image."""
    return config.width, config.height


def _longest(image: PIL.Image.Image, config: ClipConfig) -> tuple[int, int]:
    """Say how wide and high an image is that just lies within the model's input."""
    ratio = max(image.height / config.height, image.width / config.width)
    return round(image.width / ratio), round(image.height / ratio)


def _shortest(image: PIL.Image.Image, config: ClipConfig) -> tuple[int, int]:
    """Say how wide and high an image is that just covers the model's input."""
    if config.width != config.height:
        ratio = min(image.height / config.height, image.width / config.width)
        return round(image.width / ratio), round(image.height / ratio)
    short, long = config.width, int(config.width * max(image.size) / min(image.size))
    return (short, long) if image.width <= image.height else (long, short)
