"""Scenes of the demo world: drawn from a number, with boxes, place and colours known.

A scene is decided by its number alone, so a range of numbers is a dataset. The ranges are disjoint: what
trains the models, what tunes the rules' constants, what the engine is shown, and what measures.
"""

import io
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageEnhance
import PIL.ImageFilter
from numpy.random import Generator
from numpy.typing import NDArray

from demo_recipe.sprites import Sprites
from demo_recipe.things import COLOURS, PLACES, things

SIZE = 128
"""Width and height of a scene in pixels."""

RANGES = {
    "pretraining": range(48_000),
    "tuning": range(100_000, 104_000),
    "engine": range(200_000, 202_000),
    "test": range(300_000, 302_000),
}

SIDES = (26, 64)
"""Longest side of a thing in pixels, from and to."""

OVERLAP = 0.25
"""How much of the smaller of two things may be hidden, at most."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Placed:
    """A thing in a scene: its label (index of `things()`), its box x1, y1, x2, y2 in pixels, its colour."""

    label: int
    box: Box
    colour: str | None

    @property
    def longest_side(self) -> float:
        """The longer side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True)
class Scene:
    """One scene: a JPEG, and the truth about it."""

    jpeg: bytes
    placed: tuple[Placed, ...]
    place: str

    @property
    def image(self) -> NDArray[np.uint8]:
        """The decoded picture, (SIZE, SIZE, 3)."""
        return np.asarray(PIL.Image.open(io.BytesIO(self.jpeg)))

    @property
    def tags(self) -> dict[str, str]:
        """The true tags, each with its kind."""
        objects = {things()[placed.label].name: "object" for placed in self.placed}
        colours = {placed.colour: "attribute" for placed in self.placed if placed.colour}
        return {**objects, self.place: "scene", **colours}


class World:
    """Draws scenes."""

    def __init__(self, sprites: Sprites) -> None:
        self._sprites = sprites

    def scene(self, number: int) -> Scene:
        """Draw the scene of a number."""
        rng = np.random.default_rng((number, 1))
        place = PLACES[rng.integers(len(PLACES))]
        canvas = _background(place, rng)
        placed = self._place_things(canvas, rng)
        return Scene(_photograph(canvas, rng), tuple(placed), place)

    def _place_things(self, canvas: PIL.Image.Image, rng: Generator) -> list[Placed]:
        labels = [int(label) for label in rng.integers(len(things()), size=1 + rng.integers(4))]
        if len(labels) > 1 and rng.random() < 0.25:
            labels[1] = labels[0]
        boxes: list[Box] = []
        placed: list[Placed] = []
        for label in [*labels, *([-1] if rng.random() < 0.35 else [])]:
            styles = self._sprites.distractors if label < 0 else self._sprites.of_thing[label]
            colour = str(rng.choice(list(COLOURS))) if rng.random() < 0.15 else None
            sprite = _vary(styles[rng.integers(len(styles))], colour if label >= 0 else None, rng)
            box = _find_room(sprite, boxes, rng)
            if box is not None:
                canvas.paste(sprite, (int(box[0]), int(box[1])), sprite)
                boxes.append(box)
                if label >= 0:
                    placed.append(Placed(label, box, colour))
        return placed


def _vary(sprite: PIL.Image.Image, colour: str | None, rng: Generator) -> PIL.Image.Image:
    """Flip, tint, brighten, turn and scale a sprite; it comes back cut to its visible box."""
    if rng.random() < 0.5:
        sprite = sprite.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    alpha = sprite.getchannel("A")
    colours = _tint(sprite, colour) if colour else sprite.convert("RGB")
    colours = PIL.ImageEnhance.Brightness(colours).enhance(rng.uniform(0.75, 1.2))
    colours = PIL.ImageEnhance.Color(colours).enhance(rng.uniform(0.75, 1.2))
    sprite = colours.convert("RGBA")
    sprite.putalpha(alpha)
    side = rng.uniform(*SIDES)
    scale = side / max(sprite.size)
    size = (max(8, round(sprite.width * scale)), max(8, round(sprite.height * scale)))
    sprite = sprite.resize(size, PIL.Image.Resampling.BILINEAR, reducing_gap=2.0)
    sprite = sprite.rotate(rng.uniform(-25, 25), PIL.Image.Resampling.BILINEAR, expand=True)
    box = sprite.getchannel("A").point(lambda value: 255 * (value > 64)).getbbox()
    return sprite.crop(box)


def _tint(sprite: PIL.Image.Image, colour: str) -> PIL.Image.Image:
    light = np.asarray(sprite.convert("L"), dtype=np.float32)[..., None] / 255
    shades = np.array(COLOURS[colour], dtype=np.float32)
    # Dark to the colour at middle grey, on to a light tone of it: shape stays, the sprite's own colour goes.
    tinted = shades * np.minimum(1, 0.35 + 1.1 * light) + (255 - shades) * np.maximum(0, light - 0.8)
    return PIL.Image.fromarray(np.clip(tinted, 0, 255).astype(np.uint8))


def _find_room(sprite: PIL.Image.Image, taken: list[Box], rng: Generator) -> Box | None:
    """Look for a place where little is hidden; None if there is none after a few tries."""
    width, height = sprite.size
    for _ in range(12):
        x, y = (int(v) for v in rng.integers(0, (max(1, SIZE - width), max(1, SIZE - height))))
        box = (float(x), float(y), float(min(SIZE, x + width)), float(min(SIZE, y + height)))
        if all(_hidden(box, other) <= OVERLAP for other in taken):
            return box
    return None


def _hidden(a: Box, b: Box) -> float:
    """Measure the shared area as a share of the smaller box."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))


def _photograph(canvas: PIL.Image.Image, rng: Generator) -> bytes:
    """Treat the drawing as cameras and the web do: light, blur, noise, JPEG."""
    canvas = PIL.ImageEnhance.Brightness(canvas).enhance(rng.uniform(0.8, 1.15))
    canvas = PIL.ImageEnhance.Contrast(canvas).enhance(rng.uniform(0.85, 1.15))
    if rng.random() < 0.3:
        canvas = canvas.filter(PIL.ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 5), (SIZE, SIZE, 1))
        pixels = np.asarray(canvas, dtype=np.float32) + noise
        canvas = PIL.Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    sink = io.BytesIO()
    canvas.save(sink, "JPEG", quality=int(rng.integers(50, 85)), optimize=True)
    return sink.getvalue()


Colour = tuple[int, int, int]


def _shade(rng: Generator, red: int, green: int, blue: int, by: int = 22) -> Colour:
    """Vary a colour."""
    shifted = np.clip(np.array([red, green, blue]) + rng.integers(-by, by + 1, 3), 0, 255)
    return int(shifted[0]), int(shifted[1]), int(shifted[2])


def _gradient(top: Colour, bottom: Colour) -> PIL.Image.Image:
    steps = np.linspace(0, 1, SIZE)[:, None]
    rows = np.array(top) * (1 - steps) + np.array(bottom) * steps
    return PIL.Image.fromarray(np.broadcast_to(rows[:, None, :], (SIZE, SIZE, 3)).astype(np.uint8))


def _background(place: str, rng: Generator) -> PIL.Image.Image:
    """Draw an empty place."""
    horizon = int(rng.integers(40, 80))
    sky = _shade(rng, 150, 200, 240)
    if place == "night":
        sky = _shade(rng, 15, 18, 50, 12)
    elif place == "snow":
        sky = _shade(rng, 195, 205, 220)
    elif place == "room":
        sky = _shade(rng, 215, 195, 165, 40)
    canvas = _gradient(sky, _shade(rng, *sky, 12))
    draw = PIL.ImageDraw.Draw(canvas)
    _GROUNDS[place](draw, horizon, rng)
    return canvas


def _ground(draw: PIL.ImageDraw.ImageDraw, top: int, colour: Colour) -> None:
    draw.rectangle((0, top, SIZE, SIZE), fill=colour)


def _dots(
    draw: PIL.ImageDraw.ImageDraw, rng: Generator, count: int, top: int, end: int, fill: Colour
) -> None:
    for x, y in rng.integers((0, top), (SIZE, end), size=(count, 2)):
        draw.point((int(x), int(y)), fill=fill)


def _beach(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    _ground(draw, horizon, _shade(rng, 40, 140, 190))
    shore = horizon + int(rng.integers(10, 25))
    draw.polygon([(0, shore + 8), (SIZE, shore), (SIZE, SIZE), (0, SIZE)], fill=_shade(rng, 235, 210, 150))
    draw.line([(0, shore + 8), (SIZE, shore)], fill=(245, 250, 250), width=3)


def _field(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    _ground(draw, horizon, _shade(rng, 90, 165, 60))
    dark = _shade(rng, 60, 125, 40)
    for x, y in rng.integers((0, horizon), (SIZE, SIZE), size=(30, 2)):
        draw.line([(int(x), int(y)), (int(x) + 1, int(y) - 4)], fill=dark)


def _snow(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    _ground(draw, horizon, _shade(rng, 240, 244, 248, 7))
    draw.ellipse((-30, horizon - 12, 90, horizon + 30), fill=_shade(rng, 244, 247, 250, 5))
    _dots(draw, rng, 40, 0, SIZE, (255, 255, 255))


def _night(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    _dots(draw, rng, 35, 0, horizon, (250, 250, 220))
    x, y = (int(v) for v in rng.integers((10, 5), (SIZE - 25, 25)))
    draw.ellipse((x, y, x + 14, y + 14), fill=(240, 238, 200))
    _ground(draw, horizon + 20, _shade(rng, 25, 30, 38, 10))


def _ocean(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    _ground(draw, horizon - 25, _shade(rng, 25, 95, 160))
    light = _shade(rng, 90, 160, 210)
    for x, y in rng.integers((-10, horizon - 20), (SIZE, SIZE), size=(14, 2)):
        draw.arc((int(x), int(y), int(x) + 22, int(y) + 8), 200, 340, fill=light, width=2)


def _desert(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    _ground(draw, horizon, _shade(rng, 225, 165, 90))
    for shift in (0, 18, 40):
        x = int(rng.integers(-40, 90))
        box = (x, horizon + shift - 10, x + 100, horizon + shift + 40)
        draw.ellipse(box, fill=_shade(rng, 215 - shift, 150 - shift, 75, 10))


def _room(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    floor = horizon + 20
    _ground(draw, floor, _shade(rng, 140, 95, 60, 30))
    for x in range(0, SIZE, 16):
        draw.line([(x, floor), (2 * x - SIZE // 2, SIZE)], fill=_shade(rng, 110, 75, 50, 8))
    draw.line([(0, floor), (SIZE, floor)], fill=(240, 235, 225), width=3)
    x, y = (int(v) for v in rng.integers((5, 5), (90, 20)))
    draw.rectangle((x, y, x + 26, y + 28), fill=_shade(rng, 170, 215, 245), outline=(250, 250, 250), width=2)


def _street(draw: PIL.ImageDraw.ImageDraw, horizon: int, rng: Generator) -> None:
    x = 0
    while x < SIZE:
        width, top = int(rng.integers(18, 36)), horizon - int(rng.integers(10, 45))
        draw.rectangle((x, top, x + width, horizon), fill=_shade(rng, 150, 120, 110, 45))
        for window in range(x + 4, x + width - 5, 8):
            draw.rectangle((window, top + 5, window + 3, top + 9), fill=(250, 235, 160))
        x += width
    _ground(draw, horizon, _shade(rng, 95, 95, 100, 15))
    middle = (horizon + SIZE) // 2
    for start in range(int(rng.integers(-15, 0)), SIZE, 26):
        draw.rectangle((start, middle, start + 13, middle + 3), fill=(240, 240, 230))


_GROUNDS = {
    "beach": _beach,
    "field": _field,
    "snow": _snow,
    "night": _night,
    "ocean": _ocean,
    "desert": _desert,
    "room": _room,
    "street": _street,
}
