"""What is in the demo world: things with sprites, places, colours, and how captions speak of them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

MENTION_RATES = {"often": 0.9, "sometimes": 0.4, "rarely": 0.08}
"""How often a caption names a thing that is there, by the word in things.tsv."""

PLACES = ("beach", "field", "snow", "night", "ocean", "desert", "room", "street")

COLOURS = {
    "red": (225, 55, 50),
    "blue": (60, 95, 235),
    "green": (50, 175, 65),
    "purple": (155, 65, 205),
    "gray": (165, 165, 165),
}
"""Attributes: a thing may be drawn in shades of one colour, whatever its own."""

DISTRACTORS = ("2693", "1f3c6", "1f451", "1f528", "1f9f2", "26fa", "2603-fe0f", "1fab6", "1fa9e", "1fa99")
"""Sprites that no tag names, as every photograph has them."""


@dataclass(frozen=True)
class Thing:
    """An object tag: how often captions name it, and the tag that careless captions give in its place."""

    name: str
    group: str
    mention_rate: float
    look_alike: str
    sprites: tuple[str, ...]


@cache
def things() -> tuple[Thing, ...]:
    """Read things.tsv; the order is the order of labels."""
    text = Path(__file__).with_name("things.tsv").read_text(encoding="utf-8")
    found = []
    for line in text.splitlines():
        if not line.startswith("#"):
            name, group, rate, look_alike, sprites = line.split("\t")
            found.append(Thing(name, group, MENTION_RATES[rate], look_alike, tuple(sprites.split())))
    return tuple(found)


def names() -> tuple[str, ...]:
    """Give every tag of the world: things, then places, then colours."""
    return (*(thing.name for thing in things()), *PLACES, *COLOURS)
