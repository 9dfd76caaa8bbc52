"""Sprites of the demo world: drawings by code point from a tar, and a second style from an emoji font.

The tar is the one of Microsoft's Fluent 3D emoji (MIT): WebP pictures named by code point. The font is any
colour emoji font with bitmaps of 109 pixels, such as Noto Color Emoji (OFL).
"""

import io
import tarfile
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from demo_recipe.things import DISTRACTORS, things

FONT_SIZE = 109
"""The only size that bitmap emoji fonts have."""

SIDE = 96
"""Longest side of a loaded sprite, in pixels."""


class Sprites:
    """The drawings of every thing, each RGBA and cut to what is visible."""

    def __init__(self, tar: Path, font: Path | None = None) -> None:
        fluent = _read(tar)
        self.of_thing = [_styles(thing.sprites, fluent, font) for thing in things()]
        self.distractors = _styles(DISTRACTORS, fluent, font)


def _read(tar: Path) -> dict[str, PIL.Image.Image]:
    """Read the sprites that the world uses. Raises FileNotFoundError, KeyError for one that is missing."""
    wanted = {f"{code}.webp" for thing in things() for code in thing.sprites}
    wanted |= {f"{code}.webp" for code in DISTRACTORS}
    found = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            if (name := Path(member.name).name) in wanted and (stream := archive.extractfile(member)):
                picture = PIL.Image.open(io.BytesIO(stream.read())).convert("RGBA")
                found[name.removesuffix(".webp")] = _trim(picture)
    if missing := sorted(wanted - {f"{code}.webp" for code in found}):
        raise KeyError(f"{tar} has no sprite {', '.join(missing[:5])}")
    return found


def _styles(
    codes: tuple[str, ...], fluent: dict[str, PIL.Image.Image], font: Path | None
) -> list[PIL.Image.Image]:
    pictures = [fluent[code] for code in codes]
    if font is not None:
        pictures += [_draw(code, font) for code in codes]
    return pictures


def _draw(code: str, font: Path) -> PIL.Image.Image:
    """Draw an emoji with a colour font."""
    text = "".join(chr(int(point, 16)) for point in code.split("-"))
    canvas = PIL.Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE), (0, 0, 0, 0))
    letters = PIL.ImageFont.truetype(str(font), FONT_SIZE)
    PIL.ImageDraw.Draw(canvas).text((20, 20), text, font=letters, embedded_color=True)
    return _trim(canvas)


def _trim(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Cut a sprite to what is visible, and bring its longest side to `SIDE`. Raises ValueError if empty."""
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 32)).getbbox()
    if box is None:
        raise ValueError("a sprite is empty: does the font have this emoji?")
    picture = picture.crop(box)
    scale = SIDE / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.resize((size[0], size[1]), PIL.Image.Resampling.LANCZOS)
