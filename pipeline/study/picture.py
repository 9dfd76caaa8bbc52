"""Draws an example: its image with boxes in the colour of their verdict, its captions, and why each tag."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image as pillow
from PIL import ImageDraw

from tagmill.models.base import Image
from tagmill.pipeline.study import fonts
from tagmill.pipeline.study.example import Example, Record
from tagmill.pipeline.study.further_boxes import FurtherBoxes
from tagmill.pipeline.study.mentions import split_mentions
from tagmill.pipeline.study.typesetting import (
    Piece,
    cut,
    is_unjoined,
    pieces,
    unwritten,
    width,
    wrapped,
    write,
)
from tagmill.tag_system.decisions import Policy
from tagmill.tag_system.reasons import NO_CLASS, THIN, why

COLOURS = {"kept": "#1f8a43", "uncertain": "#b8730a", "dropped": "#c62f2f"}
PAPER, INK, PALE, GREY = "#fbfaf7", "#222222", "#ddd9d0", "#77736a"

MIN_WIDTH, MAX_WIDTH, MAX_HEIGHT = 800, 1_400, 2_000
"""Pixels of the image as drawn: a small one is scaled up until its labels can be read, a large one down."""

MARGIN, PANEL, LINE = 24, 640, 25
TAG, RULE, BOX, TAGGER = 22, 190, 510, 580
"""Columns of the list of tags."""

TEXT, LABEL = 16, 20
"""Sizes of letters, in pixels."""

KEY = 46
"""Where the words begin of the key to the picture, behind what they explain."""

FURTHER_BOX = 0.5
"""A further box of a tag is drawn if it scores at least this share of the best one's score."""

Box = tuple[float, float, float, float]


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
    column = list(_column(example, further or {}))
    written = [line for line, _ in captions] + [pieces(text) for line in column for _, text, _ in line.texts]
    column += _notes(written)
    height = max(photo.height + LINE * (len(captions) + 1), LINE * len(column)) + 2 * MARGIN
    sheet = pillow.new("RGB", (left + PANEL + 3 * MARGIN, height), PAPER)
    sheet.paste(photo, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(sheet)
    for place, (text, colour) in enumerate(captions):
        write(draw, (MARGIN, MARGIN + photo.height + LINE * place + 12), text, colour, TEXT)
    for place, line in enumerate(column):
        line.draw(draw, left + 2 * MARGIN, MARGIN + LINE * place)
    return sheet


def draw_photo(example: Example, pixels: Image) -> pillow.Image:
    """Draw the image of an example with the boxes of its proposed tags alone, at the size of the drawing."""
    photo = _scaled(pillow.fromarray(pixels))
    _draw_marks(photo, list(_marks(example, photo.width / pixels.shape[1])))
    return photo


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
    wide, high = width(pieces(mark.label), LABEL) + 12, 28.0
    x, y = min(
        _label_places(mark.box, wide, high, size),
        key=lambda place: sum(_common((*place, place[0] + wide, place[1] + high), other) for other in taken),
    )
    place = (x, y, x + wide, y + high)
    draw.rounded_rectangle(place, 5, COLOURS[mark.verdict], "white")
    write(draw, (x + 6, y + 3), pieces(mark.label), "white", LABEL)
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
    """One line of the column at the right: texts at their places, and before them a patch of colour, a box as
    it is drawn in the image, or an underlined word."""

    texts: Sequence[tuple[int, str, str]]
    size: int = TEXT
    patch: str = ""
    filled: bool = True
    mark: _Mark | None = None
    word: str = ""

    def draw(self, draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
        if self.patch:
            fill = self.patch if self.filled else None
            draw.rectangle((x, y + 4, x + 13, y + 17), fill, self.patch, 2)
        if self.mark is not None:
            x1, y1, x2, y2 = self.mark.box
            _draw_box(draw, _Mark((x + x1, y + y1, x + x2, y + y2), self.mark.verdict, self.mark.label))
        if self.word:
            write(draw, (x, y), [Piece(self.word, GREY)], INK, self.size)
        for column, text, colour in self.texts:
            write(draw, (x + column, y), pieces(text), colour, self.size)


def _column(example: Example, further: Mapping[str, FurtherBoxes]) -> Iterator[_Line]:
    """List the tags by verdict, with what decided, and explain what is drawn."""
    yield _Line([(0, cut(example.key, PANEL, LABEL), INK)], LABEL)
    for verdict, colour in COLOURS.items():
        decisions = example.decided(verdict)
        if decisions:
            yield _Line([])
            yield _Line(
                [(0, f"{verdict} ({len(decisions)})", colour), (BOX, "box", GREY), (TAGGER, "tagger", GREY)]
            )
        for decision in decisions:
            yield _tag_line(decision, colour, example.policy)
            boxes = further.get(decision["tag"])
            if boxes and boxes.outdone:
                yield from _said(boxes.said(), TAG)
    others = [decision["tag"] for decision in example.not_proposed()]
    if others:
        yield _Line([])
        yield _Line([(0, f"under every threshold ({len(others)})", GREY)])
        yield from _said(", ".join(others), 0)
    key = list(_key(example))
    if key:
        yield _Line([])
        yield from key


def _said(text: str, place: int) -> Iterator[_Line]:
    for line in wrapped(pieces(text), PANEL - place, TEXT):
        yield _Line([(place, "".join(piece.text for piece in line), GREY)])


def _tag_line(decision: Record, colour: str, policy: Policy) -> _Line:
    box, tagger = decision["box_score"], decision["tagger"]
    no_box = "none" if decision["asked"] else ""
    texts = [
        (TAG, cut(decision["tag"], RULE - TAG - 8, TEXT), INK),
        (RULE, cut(why(decision, policy), BOX - RULE - 8, TEXT), GREY),
        (BOX, no_box if box is None else f"{box:.2f}", GREY if box is None else INK),
        (TAGGER, NO_CLASS if tagger is None else f"{tagger:.2f}", GREY if tagger is None else INK),
    ]
    return _Line(texts, patch=colour, filled=decision["basis"] not in THIN)


def _key(example: Example) -> Iterator[_Line]:
    """Explain what is there to be seen: boxes, squares, underlined words, numbers."""
    marks = list(_marks(example, 1))
    for verdict in COLOURS:
        if any(mark.verdict == verdict and mark.label for mark in marks):
            sample = _Mark((0, 4, 32, 18), verdict, "best")
            yield _Line([(KEY, f"the best box of a tag that is {verdict}", GREY)], mark=sample)
    if thin := [mark for mark in marks if not mark.label]:
        sample = _Mark((0, 4, 32, 18), thin[-1].verdict)
        yield _Line([(KEY, "thin: its other boxes, of at least half that score", GREY)], mark=sample)
    if any(decision["basis"] in THIN for decision in example.decided("kept")):
        yield _Line(
            [(KEY, "an empty square: nothing vouches but one source", GREY)], patch=GREY, filled=False
        )
    if any(row["mentions"] for row in example.parsed) or example.generated_mentions:
        yield _Line([(KEY, "gave a tag; the line has the colour of its verdict", GREY)], word="word")
    if any(decision["tagger"] is None for decision in example.decided(*COLOURS)):
        yield _Line([(0, f"{NO_CLASS}: the tagger has no class for the tag", GREY)])
    if example.decided(*COLOURS):
        for text in (
            "box: score of the best box; tagger: score on the whole image; both 0 to 1",
            "own, other tag: how alike the box and the name are, cosine, -1 to 1",
            "rank: share of the tag's boxes that look more typical, 0 to 1",
        ):
            if text.startswith("box") or _is_told(example, text.split(":")[0].split(",")[0]):
                yield _Line([(0, text, GREY)])


def _is_told(example: Example, what: str) -> bool:
    """Tell whether a reason of the picture has a number of this name."""
    return any(what in why(decision, example.policy).split() for decision in example.decided(*COLOURS))


def _notes(lines: Iterable[Sequence[Piece]]) -> list[_Line]:
    """Say what could not be written as it should be, and what helps."""
    lines = list(lines)
    notes = []
    if odd := sorted({character for line in lines for character in unwritten(line)}):
        first = odd[0].encode("unicode_escape").decode()
        helps = "install one that has them" if fonts.has_extra() else "pip install 'tagmill[fonts]'"
        notes.append(f"no font here has the letters that are written as {first}: {helps}")
    if any(map(is_unjoined, lines)):
        notes.append("Arabic letters stand apart, for Pillow finds no FriBiDi: install libfribidi")
    return [_Line([]), *(_Line([(0, note, GREY)]) for note in notes)] if notes else []


def _caption_lines(example: Example, most: int) -> Iterator[tuple[list[Piece], str]]:
    """Give the captions in lines that fit, with the words underlined that gave tags, or why one died."""
    died = {letter["caption_index"]: letter["reason"] for letter in example.dead}
    captions = example.ingested["captions"] if example.ingested else []
    mentions = {row["caption_index"]: row["mentions"] for row in example.parsed}
    verdicts = {decision["tag"]: decision["verdict"] for decision in example.decisions}
    for index, caption in enumerate(captions):
        if caption is None:
            yield pieces(f"dead letter: {died.get(index)}"), COLOURS["dropped"]
        else:
            quoted = _quoted(caption, mentions.get(index, ()), verdicts)
            yield from ((line, INK) for line in wrapped(quoted, most, TEXT))
    if example.generated:
        quoted = _quoted(example.generated, example.generated_mentions, verdicts)
        yield from ((line, GREY) for line in wrapped([Piece("generated: "), *quoted], most, TEXT))
    if example.ingested is not None and not captions and not example.generated:
        yield pieces("no caption"), GREY


def _quoted(caption: str, mentions: Iterable[Record], verdicts: Mapping[str, str]) -> Iterator[Piece]:
    """Put a caption in quotes, with the words that gave tags underlined in the colour of their verdict."""
    yield Piece("“")
    for words, mention in split_mentions(caption, mentions):
        yield Piece(words, COLOURS.get(verdicts.get(mention["tag"], ""), GREY) if mention else "")
    yield Piece("”")
