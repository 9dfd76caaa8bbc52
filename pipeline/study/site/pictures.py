"""The pictures of the site: a chosen example's image, made smaller, and boxes of its tags cut out of it."""

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from PIL import Image as pillow

from tagmill.models.base import Image
from tagmill.pipeline.study.example import Example
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DataError, InputChangedError

SIDE, CROP_SIDE = 640, 224
"""Pixels that a picture and a box that is cut out have on their longer side at most."""

QUALITY = 75
"""Of WebP: about 40 and 5 kilobytes a picture."""

AROUND = 0.15
"""Share of a box's longer side that is shown around it."""

FOLDER = "pictures"

NO_PICTURE = "no pictures were asked for"

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Crop:
    """A picture of a tag's best box: its path, its size, and the box in it, in its pixels."""

    path: str
    width: int
    height: int
    box: Box


@dataclass(frozen=True)
class ShownExample:
    """What the site has of an example: its page, and its pictures where there are any.

    Attributes:
        key: The example's key.
        path: Its page.
        picture: The picture of its image; None if there is none, `lack` says why.
        width: Pixels of that picture.
        height: Pixels of it.
        crops: The picture of the best box of some of its tags.
    """

    key: str
    path: str
    picture: str | None = None
    width: int = 0
    height: int = 0
    crops: Mapping[str, Crop] = field(default_factory=dict)
    lack: str = ""


def name_of(key: str) -> str:
    """Name the files of an example, whatever its key is made of."""
    return hashlib.sha256(key.encode(errors="backslashreplace")).hexdigest()[:20]


def page_of(key: str) -> str:
    """Name the page of an example."""
    return f"images/{name_of(key)}.html"


class Pixels(Protocol):
    """Decodes images of examples."""

    def read(self, example: Example) -> Image:
        """Decode the image of an example. Raises what `PictureMaker.LACKING` lists where it cannot be had."""


class PictureMaker:
    """Writes pictures of examples into the folder of a site; where an image cannot be had any more, none."""

    LACKING = (ConfigError, InputChangedError, DataError, OSError)
    """What is raised where an image cannot be had."""

    def __init__(self, reader: Pixels, folder: Path) -> None:
        self._reader, self._folder = reader, folder
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)

    def make(self, examples: Sequence[tuple[Example, Collection[str]]]) -> Iterator[ShownExample]:
        """Make the pictures of examples, and of the best boxes of these tags of each, in their order."""
        with ThreadPoolExecutor(files.THREADS) as pool:
            yield from pool.map(lambda one: self._one(*one), examples)

    def _one(self, example: Example, tags: Collection[str]) -> ShownExample:
        name, page = name_of(example.key), page_of(example.key)
        try:
            pixels = self._reader.read(example)
        except self.LACKING as error:
            return ShownExample(example.key, page, lack=str(error))
        picture = pillow.fromarray(pixels)
        small = made_small(picture)
        path = f"{FOLDER}/{name}.webp"
        self._write(path, small)
        crops = dict(self._crops(example, sorted(tags), picture, name))
        return ShownExample(example.key, page, path, small.width, small.height, crops)

    def _crops(
        self, example: Example, tags: Iterable[str], picture: pillow.Image, name: str
    ) -> Iterator[tuple[str, Crop]]:
        best = {region["tag"]: region for region in example.regions if region["region"] == 0}
        for number, tag in enumerate(tags):
            if tag in best:
                box = tuple(float(best[tag][side]) for side in ("x1", "y1", "x2", "y2"))
                path = f"{FOLDER}/{name}-{number}.webp"
                cut, inside = _cut(picture, box)
                self._write(path, cut)
                yield tag, Crop(path, cut.width, cut.height, inside)

    def _write(self, path: str, picture: pillow.Image) -> None:
        (self._folder / path).write_bytes(encoded(picture))


def encoded(picture: pillow.Image) -> bytes:
    """Encode a picture as the site has them."""
    sink = io.BytesIO()
    picture.convert("RGB").save(sink, "WEBP", quality=QUALITY, method=4)
    return sink.getvalue()


def made_small(picture: pillow.Image) -> pillow.Image:
    """Make an image as small as the site shows it."""
    scale = min(1, SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, pillow.Resampling.LANCZOS)


def _cut(picture: pillow.Image, box: tuple[float, ...]) -> tuple[pillow.Image, Box]:
    """Cut a box out of a picture with something around it; gives it and the place of the box in it."""
    x1, y1, x2, y2 = box
    margin = AROUND * max(x2 - x1, y2 - y1)
    left, top = max(0, round(x1 - margin)), max(0, round(y1 - margin))
    right = min(picture.width, max(left + 1, round(x2 + margin)))
    bottom = min(picture.height, max(top + 1, round(y2 + margin)))
    left, top = min(left, right - 1), min(top, bottom - 1)
    scale = min(1, CROP_SIDE / max(right - left, bottom - top))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    cut = picture.crop((left, top, right, bottom)).resize(size, pillow.Resampling.LANCZOS)
    inside = ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale)
    return cut, tuple(round(side, 1) for side in inside)  # type: ignore[return-value]  # of four numbers
