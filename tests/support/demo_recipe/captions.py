"""Captions of the demo world, with the systematic faults of captions on the web.

What a caption leaves out or gets wrong depends on what is there: some things are hardly ever named, small
ones less, and some are taken for a certain other. Uniform noise would leave a tagger's ranking alone and
hide what the engine is for.
"""

import numpy as np
from numpy.random import Generator

from demo_recipe.things import PLACES, things
from demo_recipe.world import Placed, Scene

SMALL = 36
"""Longest side in pixels under which a thing is named less often, by `SMALL_FACTOR`."""

SMALL_FACTOR = 0.6
CONFUSED = 0.2
"""Share of mentions that name the look-alike."""

PLACE_NAMED = 0.5
PLACE_WRONG = 0.05
COLOUR_NAMED = 0.6

IRREGULAR = {"sheep": "sheep", "fish": "fish"}
NUMBERS = ("", "one", "two", "three", "four", "five")
WHERE = {
    "beach": ("on the beach", "at the beach"),
    "field": ("in a field", "in the field"),
    "snow": ("in the snow", "on the snow"),
    "night": ("at night", "in the night"),
    "ocean": ("in the ocean", "by the ocean"),
    "desert": ("in the desert", "in a desert"),
    "room": ("in a room", "in the room"),
    "street": ("on the street", "in a street"),
}
OPENINGS = ("", "", "", "here is ", "we see ", "there is ", "this is ")
NOTHING = ("wow", "so nice", "lovely", "my favorite")


def caption(scene: Scene, number: int) -> str:
    """Write the caption of the scene of a number; with that number, it is always the same."""
    rng = np.random.default_rng((number, 2))
    mentions: dict[str, list[str | None]] = {}
    for placed in scene.placed:
        if rng.random() < _rate(placed):
            thing = things()[placed.label]
            name = thing.look_alike if rng.random() < CONFUSED else thing.name
            colour = placed.colour if rng.random() < COLOUR_NAMED else None
            mentions.setdefault(name, []).append(colour)
    phrases = [_phrase(name, colours) for name, colours in mentions.items()]
    rng.shuffle(phrases)
    where = _where(scene.place, rng)
    if not phrases:
        return f"{NOTHING[rng.integers(len(NOTHING))]} {where}".strip()
    text = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return f"{OPENINGS[rng.integers(len(OPENINGS))]}{text} {where}".strip()


def true_caption(scene: Scene, number: int) -> str:
    """Write a caption that names all there is, but for the colours of pairs: what CLIP is trained on."""
    rng = np.random.default_rng((number, 3))
    mentions: dict[str, list[str | None]] = {}
    for placed in scene.placed:
        mentions.setdefault(things()[placed.label].name, []).append(placed.colour)
    phrases = [_phrase(name, colours) for name, colours in mentions.items()]
    rng.shuffle(phrases)
    where = WHERE[scene.place][rng.integers(2)]
    return f"{OPENINGS[rng.integers(len(OPENINGS))]}{' and '.join(phrases)} {where}"


def _rate(placed: Placed) -> float:
    rate = things()[placed.label].mention_rate
    return rate * SMALL_FACTOR if placed.longest_side < SMALL else rate


def _phrase(name: str, colours: list[str | None]) -> str:
    """Say "a red car" or "two cars"; a colour is told of one thing only."""
    if len(colours) > 1:
        return f"{NUMBERS[len(colours)]} {plural(name)}"
    words = f"{colours[0]} {name}" if colours[0] else name
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def plural(name: str) -> str:
    """Give the plural of a thing's name."""
    if name.endswith(("ch", "sh", "ss", "s", "x")) and name not in IRREGULAR:
        return f"{name}es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return f"{name[:-1]}ies"
    return IRREGULAR.get(name, f"{name}{'es' if name in ('tomato',) else 's'}")


def _where(place: str, rng: Generator) -> str:
    if rng.random() >= PLACE_NAMED:
        return ""
    named = PLACES[rng.integers(len(PLACES))] if rng.random() < PLACE_WRONG else place
    return WHERE[named][rng.integers(2)]
