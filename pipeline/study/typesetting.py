r"""Sets lines of text in a picture, in any script: each word in a font that has its letters.

What no font has is written as its code point, such as `\u4f60`. Lines that begin with Arabic or Hebrew run
from right to left; what is within a word is ordered and joined by raqm, or where Pillow lacks it, ordered
here and left unjoined.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from PIL import ImageDraw, ImageFont

from tagmill.pipeline.study import fonts
from tagmill.pipeline.study.fonts import Face
from tagmill.tag_system.core.text import shown

JOINERS = "\u200c\u200d\ufe0e\ufe0f"
"""Characters that only change how their neighbours look, as in 👩‍🔬."""

_CLUSTER = f"(?:\u200d\\S|[{JOINERS}\U0001f3fb-\U0001f3ff\u20e3])"
_SKIPPED = re.compile(f"[{JOINERS}]")
_LONE = re.compile(rf"(?<![^\0-\x7f])[{JOINERS}](?!\u20e3)")
"""Joiners after nothing or a letter of ASCII: nothing is joined there, they hide."""

_LETTER = re.compile(r"\d+|.(?:[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670])*")
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")

_LANGUAGES = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\u1100-\u11ff\uac00-\ud7a3]")),
    ("zh-Hans", re.compile("[\u4e00-\u9fff]")),
)
"""Languages that write some characters each in its own way; a line is in the first whose letters it has."""

SPACE = 0.28
"""Width of a space, as a share of the size: those of Pillow's own font are lost beside other letters."""

Direction = Literal["ltr", "rtl"]


@dataclass(frozen=True)
class Piece:
    """Some text of a line, underlined in a colour if one is named."""

    text: str
    underline: str = ""


@dataclass(frozen=True)
class _Word:
    """What is set in one go: a word, a space, or one Chinese character; None where it has no direction."""

    text: str
    underline: str
    direction: Direction | None


def pieces(text: str) -> list[Piece]:
    """Make a line of one text."""
    return [Piece(text)]


def width(line: Iterable[Piece], size: int) -> float:
    """Measure a line, in pixels."""
    return sum(_word_width(word.text, size) for word in _words(line))


def write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], line: Sequence[Piece], colour: str, size: int
) -> None:
    """Write a line; `place` is its left end, at the height of the tallest letters."""
    x, y = place
    base = y + fonts.installed().base.at(size).getmetrics()[0]
    language = _language(line)
    for word in _in_order(list(_words(line))):
        end = x + _word_width(word.text, size)
        if word.underline:
            draw.line((x, base + 4, end, base + 4), word.underline, 2)
        if not word.text.isspace():
            _write_word(draw, (x, base), word, colour, size, language)
        x = end


def wrapped(line: Iterable[Piece], most: float, size: int) -> Iterator[list[Piece]]:
    """Break a line where a line may end into lines of at most `most` pixels; what is longer is cut."""
    found: list[_Word] = []
    used = 0.0
    for space, unit in _units(_words(line)):
        before = [replace(space, text=" ")] if space and found else []
        needed = sum(_word_width(word.text, size) for word in (*before, *unit))
        if found and used + needed > most:
            yield _cut_words(found, most, size)
            found, used, before = [], 0.0, []
            needed = sum(_word_width(word.text, size) for word in unit)
        found += [*before, *unit]
        used += needed
    if found:
        yield _cut_words(found, most, size)


def cut(text: str, most: float, size: int) -> str:
    """Cut a text to at most `most` pixels, with an ellipsis at its end."""
    (piece,) = _cut(pieces(text), most, size) or pieces("")
    return piece.text


def unwritten(line: Iterable[Piece]) -> set[str]:
    """Name the characters of a line that no font of this machine has."""
    words = (word.text for word in _words(line) if not word.text.isspace())
    return {character for word in words for face, text in _parts(word) if face is None for character in text}


def is_unjoined(line: Iterable[Piece]) -> bool:
    """Tell whether a line has letters that should be joined, and are not as Pillow has no raqm here."""
    basic = fonts.layout_engine() is ImageFont.Layout.BASIC
    return basic and any(word.direction == "rtl" for word in _words(line))


def _cut_words(words: Sequence[_Word], most: float, size: int) -> list[Piece]:
    return _cut([Piece(word.text, word.underline) for word in words], most, size)


def _cut(line: list[Piece], most: float, size: int) -> list[Piece]:
    if width(line, size) <= most:
        return line
    line = list(line)
    while line:
        shorter = replace(line[-1], text=line[-1].text[:-1])
        ended = [*line[:-1], replace(shorter, text=shorter.text + "…")]
        if width(ended, size) <= most or (len(line) == 1 and not shorter.text):
            return ended
        line = [*line[:-1], shorter] if shorter.text else line[:-1]
    return line


def _is_wide(character: str) -> bool:
    """Tell whether a line may end after a character: Chinese ones, emoji."""
    return unicodedata.east_asian_width(character) in "WF"


def _may_begin(character: str) -> bool:
    """Tell whether a line may begin with a character: no comma, no bracket that closes."""
    return unicodedata.category(character) not in ("Po", "Pe", "Pf")


_PARTS = re.compile(rf"\s+|\S{_CLUSTER}*", re.DOTALL)


def _words(line: Iterable[Piece]) -> Iterator[_Word]:
    """Cut a line into words, made readable."""
    for piece in line:
        gathered = ""
        for part in _PARTS.findall(_readable(piece.text)):
            if part.isspace() or _is_wide(part[0]):
                if gathered:
                    yield _word(gathered, piece.underline)
                yield _word(part, piece.underline)
                gathered = ""
            else:
                gathered += part
        if gathered:
            yield _word(gathered, piece.underline)


def _readable(text: str) -> str:
    """Write what cannot be seen as escapes, but for spaces and joiners at their place."""
    kept = shown(re.sub(r"\s+", " ", text), keep=JOINERS)
    return _LONE.sub(lambda match: match[0].encode("unicode_escape").decode(), kept)


def _word(text: str, underline: str) -> _Word:
    return _Word(text, underline, _direction(text))


@lru_cache(maxsize=4096)
def _direction(text: str) -> Direction | None:
    """Give the direction of the first letter that has one."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind == "L":
            return "ltr"
        if kind in ("R", "AL"):
            return "rtl"
    return None


def _units(words: Iterable[_Word]) -> Iterator[tuple[_Word | None, list[_Word]]]:
    """Give what must stay on one line, with the space before it."""
    space, unit = None, list[_Word]()
    for word in words:
        is_wide = _is_wide(word.text[0]) or bool(unit and _is_wide(unit[-1].text[0]))
        if unit and (word.text.isspace() or (is_wide and _may_begin(word.text[0]))):
            yield space, unit
            space, unit = None, []
        if word.text.isspace():
            space = word
        else:
            unit.append(word)
    if unit:
        yield space, unit


def _in_order(words: list[_Word]) -> list[_Word]:
    """Order words from left to right, by the levels of Unicode's bidirectional algorithm (UAX 9, rule L2)."""
    directions = [word.direction for word in words]
    main: Direction = next(filter(None, directions), "ltr")
    if "rtl" not in directions:
        return words
    resolved = [
        word if word.direction else replace(word, direction=_around(i, directions, main))
        for i, word in enumerate(words)
    ]
    runs: list[list[_Word]] = []
    for word in resolved:
        if runs and runs[-1][0].direction == word.direction:
            runs[-1].append(word)
        else:
            runs.append([word])
    if main == "rtl":
        runs.reverse()
    return [word for run in runs for word in (run if run[0].direction == "ltr" else reversed(run))]


def _around(place: int, directions: Sequence[Direction | None], main: Direction) -> Direction:
    """Give a word without a direction that of its neighbours if they agree, else that of the line."""
    before: Direction = next(filter(None, reversed(directions[:place])), main)
    after: Direction = next(filter(None, directions[place + 1 :]), main)
    return before if before == after else main


@lru_cache(maxsize=16_384)
def _parts(text: str) -> tuple[tuple[Face | None, str], ...]:
    """Give a word with the first face that has all of it, else each character with its own; None: no face."""
    faces, seen = fonts.installed(), _SKIPPED.sub("", text)
    face = faces.of(seen)
    return ((face, text),) if face else tuple((faces.of(character), character) for character in seen)


def _written(text: str) -> Iterator[tuple[Face, str]]:
    base, joins = fonts.installed().base, fonts.layout_engine() == ImageFont.Layout.RAQM
    for face, part in _parts(text):
        if face is None:
            yield base, part.encode("unicode_escape").decode()
        else:  # without raqm a joiner is a letter like others, which no font has
            yield face, part if joins and face is not base else _SKIPPED.sub("", part)


@lru_cache(maxsize=16_384)
def _word_width(text: str, size: int) -> float:
    if text.isspace():
        return SPACE * size
    return sum(face.at(size).getlength(part) for face, part in _written(text))


def _write_word(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    word: _Word,
    colour: str,
    size: int,
    language: str | None,
) -> None:
    x, base = place
    parts = list(_written(word.text))
    for face, text in reversed(parts) if word.direction == "rtl" else parts:
        font = face.at(size)
        if font.layout_engine == ImageFont.Layout.RAQM:
            options: dict[str, Any] = {"direction": word.direction, "language": language}
            draw.text((x, base), text, colour, font, anchor="ls", **options)
        else:
            draw.text((x, base), _turned(text, word.direction), colour, font, anchor="ls")
        x += font.getlength(text)


def _turned(text: str, direction: Direction | None) -> str:
    """Order the letters of a word from left to right, numbers as they are, where nothing else does it."""
    return "".join(reversed(_LETTER.findall(text.translate(_MIRRORED)))) if direction == "rtl" else text


def _language(line: Iterable[Piece]) -> str | None:
    text = "".join(piece.text for piece in line)
    return next((language for language, letters in _LANGUAGES if letters.search(text)), None)
