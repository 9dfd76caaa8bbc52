"""A tar of sprites for the demo world that needs no sprite set: a coloured shape for every code point."""

import colorsys
import io
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw

from demo_recipe.things import DISTRACTORS, things


def write(path: Path) -> Path:
    """Write `fluent3d.tar`-like pictures, each thing with a hue and a shape of its own."""
    codes = [code for thing in things() for code in thing.sprites] + list(DISTRACTORS)
    with tarfile.open(path, "w") as tar:
        for index, code in enumerate(codes):
            sink = io.BytesIO()
            _shape(index, len(codes)).save(sink, "WEBP", lossless=True)
            member = tarfile.TarInfo(f"{code}.webp")
            member.size = len(sink.getvalue())
            tar.addfile(member, io.BytesIO(sink.getvalue()))
    return path


def _shape(index: int, count: int) -> Image.Image:
    red, green, blue = (int(255 * value) for value in colorsys.hsv_to_rgb(index / count, 0.8, 0.9))
    picture = Image.new("RGBA", (120, 120), (0, 0, 0, 0))
    corners = 3 + index % 5
    ImageDraw.Draw(picture).regular_polygon((60, 60, 50), corners, fill=(red, green, blue, 255))
    return picture
