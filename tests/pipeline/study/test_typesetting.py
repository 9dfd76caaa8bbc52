# ruff: noqa: RUF001
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, features

from tagmill.pipeline.study import typesetting
from tagmill.pipeline.study.fonts import Faces, installed
from tagmill.pipeline.study.typesetting import Piece, cut, pieces, unwritten, width, wrapped, write

ARABIC, CYRILLIC, CHINESE = "كلب على أريكة", "Собака с ёлкой", "一只狗坐在沙发上，旁边有一本书。"
RED, GREEN, BLUE = "#ff0000", "#00ff00", "#0000ff"


def drawn(line) -> np.ndarray:
    image = Image.new("RGB", (900, 40), "white")
    write(ImageDraw.Draw(image), (10, 5), line, "black", 16)
    return np.array(image)


def place(pixels: np.ndarray, colour: str) -> tuple[int, int]:
    """From where to where a colour is seen."""
    (columns,) = np.nonzero(
        (pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1).any(axis=0)
    )
    return columns.min(), columns.max()


@pytest.mark.parametrize("text", [ARABIC, CYRILLIC, CHINESE, "a café 😀 ❤"], ids=ascii)
def test_every_letter_is_of_a_font_that_has_it(text):
    assert not unwritten(pieces(text))
    assert (drawn(pieces(text)) < 100).any()
    for word in text.split():
        for face, part in typesetting._parts(word):
            if face.path:
                with TTFont(face.path, fontNumber=0, lazy=True) as font:
                    assert {ord(letter) for letter in part} <= set(font.getBestCmap())


def test_what_no_font_has_is_written_as_its_code_point():
    assert Faces(()).of("狗") is None  # Pillow's own font is for English
    assert Faces(()).of("dog").path == ""
    rare = "\U00018b00"
    if installed().of(rare) is None:
        assert width(pieces(rare), 16) == width(pieces(r"\U00018b00"), 16)
        assert unwritten(pieces(f"a {rare}")) == {rare}


@pytest.mark.parametrize("hidden", ["do\u200dg", "\u202edog", "a\u200b", "\ufe0f"])
def test_what_cannot_be_seen_is_written_as_its_code_point(hidden):
    escaped = hidden.encode("unicode_escape").decode()
    assert width(pieces(hidden), 16) == width(pieces(escaped), 16)


def test_arabic_runs_from_right_to_left_and_what_is_english_in_it_does_not():
    first, second = (Piece(word, colour) for word, colour in zip(ARABIC.split(), (RED, GREEN), strict=False))
    space, dog = Piece(" "), Piece("dog", BLUE)
    for line, order in (
        ([first, space, second, space, dog], (BLUE, GREEN, RED)),
        ([dog, space, first, space, second], (BLUE, GREEN, RED)),
        ([first, space, dog, space, second], (GREEN, BLUE, RED)),
    ):
        pixels = drawn(line)
        (_, one), (two, three), (four, _) = (place(pixels, colour) for colour in order)
        assert one < two < three < four


def test_arabic_letters_join_or_it_is_said_that_they_do_not():
    letters = "ببب"
    joined = width(pieces(letters), 20) < 3 * width(pieces("ب"), 20)
    assert joined == bool(features.check("raqm"))
    assert typesetting.is_unjoined(pieces(letters)) != joined


def test_letters_that_stand_apart_are_still_in_order():
    assert typesetting._turned("(אב12)", "rtl") == "(12בא)"


def test_chinese_lines_end_between_letters_and_none_begins_with_a_comma():
    lines = ["".join(piece.text for piece in line) for line in wrapped(pieces(CHINESE * 3), 130, 16)]
    assert len(lines) > 4
    assert "".join(lines) == CHINESE * 3
    assert not any(line[0] in "，。" for line in lines)


def test_an_underlined_word_stays_so_when_the_line_breaks():
    line = [Piece("a "), Piece("hot dog", RED), Piece("'s on a table")]
    broken = list(wrapped(line, 65, 16))
    assert [("".join(p.text for p in one), {p.text for p in one if p.underline}) for one in broken] == [
        ("a hot", {"hot"}),
        ("dog's on", {"dog"}),
        ("a table", set()),
    ]


@settings(max_examples=50)
@given(st.text(max_size=60), st.floats(20, 500))
def test_wrapped_lines_fit_and_lose_no_word_that_fits(text, most):
    lines = list(wrapped(pieces(text), most, 16))
    texts = ["".join(piece.text for piece in line) for line in lines]
    assert all(width(line, 16) <= most or found == "…" for line, found in zip(lines, texts, strict=True))
    if all(width(pieces(word), 16) <= most for word in text.split()):
        readable = typesetting._readable(text)
        assert "".join("".join(texts).split()) == "".join(readable.split())
    assert width(pieces(cut(text, most, 16)), 16) <= max(most, width(pieces("…"), 16))
