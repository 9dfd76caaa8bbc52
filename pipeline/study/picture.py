"""Draws an example: its image with the boxes of its tags in the colour of their verdict, and a legend."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image as pillow
from PIL import ImageDraw, ImageFont

from tagmill.models.base import Image
from tagmill.pipeline.study.example import Example
from tagmill.pipeline.study.further_boxes import FurtherBoxes
from tagmill.tag_system.decisions import Policy
from tagmill.tag_system.reasons import THIN, why

COLOURS = {"kept": "#1f8a43", "uncertain": "#b8730a", "dropped": "#c62f2f"}
PAPER, INK, PALE, GREY = "#fbfaf7", "#222222", "#ddd9d0", "#77736a"

MIN_WIDTH, MAX_WIDTH, MAX_HEIGHT = 800, 1_400, 2_000
"""Pixels of the image as drawn: a small one is scaled up until its labels can be read, a large one down."""

MARGIN, PANEL, LINE = 24, 640, 25
TAG, RULE, BOX, TAGGER = 22, 190, 510, 580
"""Columns of the legend."""

FURTHER_BOX = 0.5
"""A further box of a tag is drawn if it scores at least this share of the best one's score."""

Box = tuple[float, float, float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Mark:
    """One box to draw; only a tag's best box has a label."""

    box: Box
    verdict: str
    label: str = ""


def draw_example(
    example: Example, pixels: Image, further: Mapping[str, FurtherBoxes] | None = None
) -> pillow.Image:
    """Draw an example: at the left its image with boxes, under it its captions, at the right its tags.

    `further` is what other boxes than a tag's best one would have said, by tag.
    """
    photo = draw_photo(example, pixels)
    left = max(photo.width, MIN_WIDTH // 2)
    captions = list(_caption_lines(example, left))
    legend = list(_legend(example, further or {}))
    height = max(photo.height + LINE * (len(captions) + 1), LINE * len(legend)) + 2 * MARGIN
    sheet = pillow.new("RGB", (left + PANEL + 3 * MARGIN, height), PAPER)
    sheet.paste(photo, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(sheet)
    for place, (text, colour) in enumerate(captions):
        draw.text((MARGIN, MARGIN + photo.height + LINE * place + 12), text, colour, _font(16))
    for place, line in enumerate(legend):
        line.draw(draw, left + 2 * MARGIN, MARGIN + LINE * place)
    return sheet


def draw_photo(example: Example, pixels: Image) -> pillow.Image:
    """Draw the image of an example with the boxes of its proposed tags alone, at the size of the drawing."""
    photo = _scaled(pillow.fromarray(pixels))
    _draw_marks(photo, list(_marks(example, photo.width / pixels.shape[1])))
    return photo


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _scaled(image: pillow.Image) -> pillow.Image:
    width = min(max(image.width, MIN_WIDTH), MAX_WIDTH)
    scale = min(width / image.width, MAX_HEIGHT / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, pillow.Resampling.BICUBIC)


def _marks(example: Example, scale: float) -> Iterator[_Mark]:
    """List the boxes of all proposed tags, kept ones last: what is drawn last lies on top."""
    for verdict in ("dropped", "uncertain", "kept"):
        for decision in example.decided(verdict):
            regions = [region for region in example.regions if region["tag"] == decision["tag"]]
            for region in reversed(regions):
                box = tuple(region[side] * scale for side in ("x1", "y1", "x2", "y2"))
                x1, y1, x2, y2 = box
                if region["region"] == 0:
                    yield _Mark((x1, y1, x2, y2), verdict, f"{decision['tag']} {region['score']:.2f}")
                elif region["score"] >= FURTHER_BOX * regions[0]["score"]:
                    yield _Mark((x1, y1, x2, y2), verdict)


def _draw_marks(photo: pillow.Image, marks: Sequence[_Mark]) -> None:
    draw = ImageDraw.Draw(photo)
    for mark in marks:
        _draw_box(draw, mark)
    taken: list[Box] = []
    # The labels of kept tags choose their places first.
    for mark in reversed(marks):
        if mark.label:
            taken.append(_draw_label(draw, mark, photo.size, taken))


def _draw_box(draw: ImageDraw.ImageDraw, mark: _Mark) -> None:
    x1, y1, x2, y2 = mark.box
    colour = COLOURS[mark.verdict]
    if mark.verdict == "kept":
        draw.rectangle(mark.box, outline="white", width=7 if mark.label else 3)
        draw.rectangle(mark.box, outline=colour, width=5 if mark.label else 2)
        return
    width = 4 if mark.label else 2
    dash, gap = (14, 9) if mark.verdict == "dropped" else (26, 5)
    for start, end in (
        ((x1, y1), (x2, y1)),
        ((x2, y1), (x2, y2)),
        ((x2, y2), (x1, y2)),
        ((x1, y2), (x1, y1)),
    ):
        draw.line((*start, *end), "white", width)
        for piece in _dashes(start, end, dash, gap):
            draw.line(piece, colour, width)


def _dashes(start: tuple[float, float], end: tuple[float, float], dash: float, gap: float) -> Iterator[Box]:
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])  # the sides are upright or level
    place = 0.0
    while place < length:
        a, b = place / length, min(place + dash, length) / length
        yield tuple(  # type: ignore[misc]  # of four numbers
            start[axis] + (end[axis] - start[axis]) * share for share in (a, b) for axis in (0, 1)
        )
        place += dash + gap


def _draw_label(draw: ImageDraw.ImageDraw, mark: _Mark, size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Write a box's label where it covers other labels least, inside the picture; returns where."""
    width, height = draw.textlength(mark.label, _font(20)) + 12, 28.0
    x, y = min(
        _label_places(mark.box, width, height, size),
        key=lambda place: sum(
            _common((*place, place[0] + width, place[1] + height), other) for other in taken
        ),
    )
    place = (x, y, x + width, y + height)
    draw.rounded_rectangle(place, 5, COLOURS[mark.verdict], "white")
    draw.text((x + 6, y + height / 2), mark.label, "white", _font(20), anchor="lm")
    return place


def _label_places(
    box: Box, width: float, height: float, size: tuple[int, int]
) -> Iterator[tuple[float, float]]:
    """List places for a label in the picture, the best first: over the box, under it, in its corners."""
    x1, y1, x2, y2 = box
    right = x2 - width
    for x, y in (
        (x1, y1 - height),
        (right, y1 - height),
        (x1, y2),
        (right, y2),
        (x1, y1),
        (right, y1),
        (x1, y2 - height),
        (right, y2 - height),
        (x1, (y1 + y2 - height) / 2),
        (x2, y1),
        (x1 - width, y1),
    ):
        yield max(0, min(x, size[0] - width - 1)), max(0, min(y, size[1] - height - 1))


def _common(one: Box, other: Box) -> float:
    """Area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


@dataclass(frozen=True)
class _Line:
    """One line of the legend: texts at their columns, and a patch of colour before them."""

    texts: Sequence[tuple[int, str, str]]
    size: int = 16
    patch: str = ""
    filled: bool = True

    def draw(self, draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
        if self.patch:
            fill = self.patch if self.filled else None
            draw.rectangle((x, y + 4, x + 13, y + 17), fill, self.patch, 2)
        for column, text, colour in self.texts:
            draw.text((x + column, y), text, colour, _font(self.size))


def _legend(example: Example, further: Mapping[str, FurtherBoxes]) -> Iterator[_Line]:
    yield _Line([(0, _cut(example.key, PANEL, 20), INK)], 20)
    for verdict, colour in COLOURS.items():
        decisions = example.decided(verdict)
        if decisions:
            yield _Line([])
            yield _Line(
                [(0, f"{verdict} ({len(decisions)})", colour), (BOX, "box", GREY), (TAGGER, "tagger", GREY)]
            )
        for decision in decisions:
            yield _legend_line(decision, colour, example.policy)
            boxes = further.get(decision["tag"])
            if boxes and boxes.outdone:
                yield _Line([(TAG, _cut(boxes.said(), PANEL - TAG), GREY)])
    if any(decision["basis"] in THIN for decision in example.decided("kept")):
        yield _Line([])
        legend = (TAG, "an empty square: nothing vouches but one source", GREY)
        yield _Line([legend], patch=GREY, filled=False)
    others = [decision["tag"] for decision in example.not_proposed()]
    if others:
        yield _Line([])
        yield _Line([(0, f"under every threshold ({len(others)})", GREY)])
        for line in _wrapped(", ".join(others), PANEL):
            yield _Line([(0, line, GREY)])


def _legend_line(decision: dict[str, Any], colour: str, policy: Policy) -> _Line:
    box, tagger = decision["box_score"], decision["tagger"]
    no_box = "none" if decision["asked"] else ""
    texts = [
        (TAG, _cut(decision["tag"], RULE - TAG - 8), INK),
        (RULE, _cut(why(decision, policy), BOX - RULE - 8), GREY),
        (BOX, no_box if box is None else f"{box:.2f}", GREY if box is None else INK),
        (TAGGER, "" if tagger is None else f"{tagger:.2f}", INK),
    ]
    return _Line(texts, patch=colour, filled=decision["basis"] not in THIN)


def _caption_lines(example: Example, width: int) -> Iterator[tuple[str, str]]:
    """Give the captions in lines that fit, with the reason where one died."""
    died = {letter["caption_index"]: letter["reason"] for letter in example.dead}
    captions = example.ingested["captions"] if example.ingested else []
    for index, caption in enumerate(captions):
        if caption is None:
            yield f"dead letter: {died.get(index)}", COLOURS["dropped"]
        else:
            yield from ((line, INK) for line in _wrapped(f"“{caption}”", width))
    if example.generated:
        yield from ((line, GREY) for line in _wrapped(f"generated: “{example.generated}”", width))
    if example.ingested is not None and not captions and not example.generated:
        yield "no caption", GREY


def _wrapped(text: str, width: float) -> Iterator[str]:
    """Break a text between words into lines of at most `width` pixels; a longer word is cut."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _font(16).getlength(longer) > width:
            yield _cut(line, width)
            longer = word
        line = longer
    if line:
        yield _cut(line, width)


def _cut(text: str, width: float, size: int = 16) -> str:
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
