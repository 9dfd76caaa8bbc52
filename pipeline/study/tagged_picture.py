"""Draws what a model found in an image beside it: its classes with their scores, and which are right."""

import numpy as np
from PIL import Image as pillow
from PIL import ImageDraw

from tagmill.models.base import Image
from tagmill.models.training.scores import POSITIVE, UNKNOWN
from tagmill.models.training.validation import Pictured
from tagmill.pipeline.study.picture import COLOURS, GREY, INK, PAPER
from tagmill.pipeline.study.typesetting import cut, pieces, write

SIDE, PANEL, MARGIN, LINE, TEXT = 384, 330, 12, 24, 15
"""Pixels of the image's height and of its parts."""

SCORE, WORD = 180, 230
"""Columns of the list, from the left of the panel."""

MOST = (SIDE - LINE) // LINE
"""Classes that are listed."""

WORDS = {
    "right": COLOURS["kept"],
    "wrong": COLOURS["dropped"],
    "missed": COLOURS["uncertain"],
    "unknown": GREY,
}
"""What becomes of a class, and its colour. `missed` is true, and scored below its threshold."""


def draw_pictured(one: Pictured) -> Image:
    """Draw an image with its predicted and its true classes, the highest score first: uint8 [H, W, 3]."""
    scores, labels, thresholds = one.scores, one.labels, one.thresholds
    photo = pillow.fromarray(one.pixels)
    photo = photo.resize((round(SIDE * photo.width / photo.height), SIDE), pillow.Resampling.BICUBIC)
    left = photo.width + 2 * MARGIN
    sheet = pillow.new("RGB", (left + PANEL, SIDE + 2 * MARGIN), PAPER)
    sheet.paste(photo, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(sheet)
    rows = np.flatnonzero((scores >= np.asarray(thresholds)) | (labels == POSITIVE))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    for line, at in enumerate(rows[:MOST].tolist()):
        word = _word(scores[at] >= thresholds[at], int(labels[at]))
        texts = ((0, cut(one.classes[at], SCORE - MARGIN, TEXT), INK), (SCORE, f"{scores[at]:.2f}", INK))
        for x, text, colour in (*texts, (WORD, word, WORDS[word])):
            write(draw, (left + x, MARGIN + LINE * line), pieces(text), colour, TEXT)
    rest = f"and {len(rows) - MOST} more" if len(rows) > MOST else "" if len(rows) else "no class"
    write(draw, (left, MARGIN + LINE * min(len(rows), MOST)), pieces(rest), GREY, TEXT)
    return np.asarray(sheet)


def _word(is_predicted: bool, label: int) -> str:
    if not is_predicted:
        return "missed"
    if label == UNKNOWN:
        return "unknown"
    return "right" if label == POSITIVE else "wrong"
