import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow
from PIL import ImageDraw

from tagmill.pipeline.study import picture
from tagmill.pipeline.study.example import Example
from tagmill.pipeline.study.fonts import installed
from tagmill.pipeline.study.picture import COLOURS, draw_example
from tagmill.pipeline.study.typesetting import Piece, write


def an_example(size: tuple[int, int], tags: int, seed: int = 0, **changes) -> Example:
    """An example with boxes anywhere, of every verdict."""
    generator = random.Random(seed)
    example = Example("scenes/000123", "p", 0, ingested={"captions": ["a dog and a cat", None]}, **changes)
    example.dead = [{"unit": "caption", "caption_index": 1, "reason": "caption_empty"}]
    for number in range(tags):
        x, y = (sorted(generator.uniform(0, side) for _ in range(2)) for side in size)
        box = {"x1": x[0], "x2": x[1] + 1, "y1": y[0], "y2": y[1] + 1}
        tag = f"tag {number} " + "x" * generator.randint(0, 30)
        score = generator.random()
        example.regions.append({"tag": tag, "region": 0, "score": score, **box})
        verdict = ("kept", "uncertain", "dropped")[number % 3]
        decision = {"tag": tag, "verdict": verdict, "rule": "other_tag", "other_tag": "cat", "asked": True}
        found = {"tagger": None, "box_score": score, "own_score": 0.2, "other_score": 0.4, "basis": "region"}
        example.decisions.append(decision | found)
    others = {"verdict": "dropped", "rule": "not_proposed", "asked": False, "tagger": 0.4, "box_score": None}
    example.decisions += [{"tag": f"other {number}", **others} for number in range(30)]
    return example


def colours_in(image: "picture.pillow.Image") -> set[str]:
    return {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.unique(np.array(image).reshape(-1, 3), axis=0)}


@pytest.mark.parametrize(
    ("width", "height"), [(128, 128), (640, 427), (4000, 3000), (1, 3000), (3000, 1), (1, 1)], ids=str
)
def test_any_image_becomes_a_sheet_of_readable_size(width, height):
    sheet = draw_example(an_example((width, height), 6), np.zeros((height, width, 3), np.uint8))
    assert 800 <= sheet.width <= picture.MAX_WIDTH + picture.PANEL + 3 * picture.MARGIN
    assert 300 <= sheet.height <= picture.MAX_HEIGHT + 500


def test_a_small_image_is_scaled_up_and_every_verdict_has_its_colour():
    sheet = draw_example(an_example((128, 128), 6), np.full((128, 128, 3), 200, np.uint8))
    assert sheet.width > 800 + picture.PANEL
    photo = sheet.crop((picture.MARGIN, picture.MARGIN, 800, 800))
    assert set(COLOURS.values()) <= colours_in(photo)


def test_tags_that_nothing_proposed_have_no_box_and_are_listed():
    example = an_example((128, 128), 0)
    example.regions = [{"tag": "other 0", "region": 0, "score": 0.9, "x1": 9, "y1": 9, "x2": 99, "y2": 99}]
    sheet = draw_example(example, np.full((128, 128, 3), 200, np.uint8))
    photo = sheet.crop((picture.MARGIN, picture.MARGIN, 800, 800))
    assert colours_in(photo) == {"#c8c8c8"}
    written = [text for line in picture._column(example, {}) for _, text, _ in line.texts]
    assert "under every threshold (30)" in written
    assert any("other 29" in text for text in written)


def text_of(line) -> str:
    return "".join(piece.text for piece in line)


def test_captions_and_dead_letters_stand_under_the_image():
    lines = list(picture._caption_lines(an_example((9, 9), 0, generated="a bird"), 800))
    assert [text_of(line) for line, _ in lines] == [
        "“a dog and a cat”",
        "dead letter: caption_empty",
        "generated: “a bird”",
    ]
    silent = Example("k", "p", 0, ingested={"captions": []})
    assert [text_of(line) for line, _ in picture._caption_lines(silent, 800)] == ["no caption"]
    assert not list(picture._caption_lines(Example("k", "p", 0), 800))


def test_words_that_gave_tags_are_underlined_in_the_colour_of_their_verdict():
    found = [{"tag": "dog", "start": 2, "end": 5}, {"tag": "cat", "start": 12, "end": 15}]
    example = an_example((9, 9), 0, parsed=[{"caption_index": 0, "mentions": found}])
    example.decisions = [{"tag": "dog", "verdict": "kept"}, {"tag": "cat", "verdict": "dropped"}]
    ((line, _), _) = picture._caption_lines(example, 800)
    marked = {piece.text: piece.underline for piece in line if piece.underline}
    assert marked == {"dog": COLOURS["kept"], "cat": COLOURS["dropped"]}
    plain, wide = (pillow.new("RGB", (300, 30), "white") for _ in range(2))
    for image, written in ((plain, [Piece(text_of(line))]), (wide, line)):
        write(ImageDraw.Draw(image), (5, 2), written, "black", 16)
    assert colours_in(wide) - colours_in(plain) >= set(marked.values())


def test_a_key_explains_what_is_drawn_and_nothing_else():
    example = an_example((128, 128), 2)  # one kept, one uncertain
    example.regions.append(example.regions[0] | {"region": 1})
    words = " ".join(text for line in picture._key(example) for _, text, _ in line.texts)
    assert "a tag that is kept" in words
    assert "a tag that is uncertain" in words
    assert "a tag that is dropped" not in words
    assert "thin: its other boxes" in words
    assert "gave a tag" not in words
    assert "cosine" in words  # both went by another tag
    assert "rank" not in words
    assert not list(picture._key(Example("k", "p", 0)))


def test_letters_that_no_font_has_are_said_once_with_what_helps():
    rare = "\U00018b00"  # of a script that died out in 1191
    if installed().of(rare):
        pytest.skip("this machine has a font for it")
    captions = {"captions": [f"{rare} and {rare}"]}
    line, *_ = (line for line, _ in picture._caption_lines(Example("k", "p", 0, ingested=captions), 800))
    ((_, note, _),) = picture._notes([line, line])[1].texts
    assert "written as \\U00018b00" in note
    assert note.endswith(("pip install 'tagmill[fonts]'", "install one that has them"))
    assert picture._notes([[Piece("a dog")]]) == []


@given(st.integers(0, 1000), st.integers(1, 12))
def test_labels_lie_in_the_picture_whatever_the_boxes(seed, tags):
    size = (900, 600)
    for mark in picture._marks(an_example(size, tags, seed), 1.0):
        places = list(picture._label_places(mark.box, 200.0, 28.0, size))
        assert all(0 <= x <= size[0] - 200 and 0 <= y <= size[1] - 28 for x, y in places)
