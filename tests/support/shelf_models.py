"""A picture of a shelf, and a detector that finds twenty things on it, of which the best is another thing."""

from collections.abc import Sequence

import numpy as np
from PIL import Image as pillow
from PIL import ImageDraw

from sources import COLOURS
from square_models import SquareLocalizer
from tagmill.models.base import Boxes, Image

PLACES = [(4 + 24 * (i % 5), 4 + 24 * (i // 5), 22 + 24 * (i % 5), 22 + 24 * (i // 5)) for i in range(20)]
"""Boxes of the twenty things; the first is blue, the others are red."""

SCORES = [0.9 - 0.01 * i for i in range(13)] + [0.14 - 0.001 * i for i in range(7)]
"""Scores of the boxes as "red": thirteen are strong, seven are weak."""

SWAPPED = 7
"""The box that changes scores with the first one where the picture's first pixel is black."""


def shelf(swapped: bool = False) -> pillow.Image:
    image = pillow.new("RGB", (124, 100), (235, 235, 235))
    draw = ImageDraw.Draw(image)
    for place, box in enumerate(PLACES):
        draw.rectangle(box, COLOURS["red" if place else "blue"])
    if swapped:
        image.putpixel((0, 0), (0, 0, 0))
    return image


class ShelfLocalizer(SquareLocalizer):
    """Finds twenty red things, and the blue one."""

    def _find(self, image: Image, prompt: Sequence[str]) -> Boxes:
        scores = list(SCORES)
        if not image[0, 0].any():
            scores[0], scores[SWAPPED] = scores[SWAPPED], scores[0]
        found = [(prompt.index("red"), box, score) for box, score in zip(PLACES, scores, strict=True)]
        found.append((prompt.index("blue"), PLACES[0], 0.8))
        tags, boxes, given = zip(*found, strict=True)
        return Boxes(
            tags=np.array(tags), boxes=np.array(boxes, np.float32), scores=np.array(given, np.float32)
        )
