"""Images as files of an export: the stored bytes, or, of a camera that was held otherwise, turned upright."""

import hashlib
import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image as pillow

from tagmill.pipeline.study.exports.chosen import ChosenExample
from tagmill.tag_system.core import pixels
from tagmill.tag_system.core.errors import ConfigError, DataError
from tagmill.tag_system.shard_contract import EXTENSIONS, escape

MAX_STEM = 180
"""Characters of a file name without its extension; most file systems take 255 bytes."""

TURNED = "images whose EXIF orientation is gone: they were turned upright and stored anew"
ODD = "images that stay HEIC or JPEG XL, which many readers do not decode"

_SAVED: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}
"""How turned pictures are stored; those of other formats become PNG."""


class ImageFolder:
    """The images of an export, in a folder for each split under `root`, or in `root` itself."""

    def __init__(self, root: Path, lost: Counter[str], *, by_split: bool = True) -> None:
        self._root, self._lost, self._by_split = root, lost, by_split
        self._made: set[Path] = set()

    def write(self, one: ChosenExample) -> str:
        """Write an image, upright; gives its path relative to the root."""
        data, extension = upright(one, self._lost)
        name = f"{file_stem(one.sample.key)}.{extension}"
        path = f"{one.sample.split}/{name}" if self._by_split else name
        target = self._root / path
        if target.parent not in self._made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(target.parent)
        target.write_bytes(data)
        return path


def file_stem(key: str) -> str:
    """Give the file name of a key, without extension: escaped; a long one is cut, and ends in its digest."""
    stem = escape(key)
    if len(stem) <= MAX_STEM:
        return stem
    return f"{stem[: MAX_STEM - 17]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def upright(one: ChosenExample, lost: Counter[str]) -> tuple[bytes, str]:
    """Give an image's bytes, in which no EXIF turns it, and its extension; what that changes is counted."""
    sample = one.sample
    if sample.format in ("HEIF", "JXL"):
        lost[ODD] += 1
    if sample.orientation is None or sample.orientation == 1:
        return one.stored, EXTENSIONS[sample.format]
    try:
        # Of the same bytes, ingest has checked already how large they become.
        image = pixels.open_image(one.stored, sample.width * sample.height, sys.maxsize)
        pixels.load(image)
    except DataError as error:
        raise ConfigError(
            f"{sample.key} cannot be turned upright ({error}): is a decoder missing that the run had?"
        ) from error
    lost[TURNED] += 1
    format_ = sample.format if sample.format in _SAVED else "PNG"
    turned = image.transpose(pixels.TURNS[sample.orientation])
    return _saved(image, turned, format_), EXTENSIONS[format_]


def _saved(image: pillow.Image, turned: pillow.Image, format_: str) -> bytes:
    profile = image.info.get("icc_profile")
    if format_ == "PNG" and turned.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        turned, profile = turned.convert("RGB"), None
    sink = io.BytesIO()
    # Only what is named is stored: what else an image says of itself may hold its orientation again.
    turned.info = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    turned.save(sink, format_, icc_profile=profile, **_SAVED.get(format_, {}))
    return sink.getvalue()
