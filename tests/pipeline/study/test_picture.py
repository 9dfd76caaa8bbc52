import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmill.pipeline.study import picture
from tagmill.pipeline.study.example import Example
from tagmill.pipeline.study.picture import COLOURS, draw_example


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
    written = [text for line in picture._legend(example, {}) for _, text, _ in line.texts]
    assert "under every threshold (30)" in written
    assert any("other 29" in text for text in written)


def test_captions_and_dead_letters_stand_under_the_image():
    lines = list(picture._caption_lines(an_example((9, 9), 0, generated="a bird"), 800))
    assert [text for text, _ in lines] == [
        "“a dog and a cat”",
        "dead letter: caption_empty",
        "generated: “a bird”",
    ]
    silent = Example("k", "p", 0, ingested={"captions": []})
    assert [text for text, _ in picture._caption_lines(silent, 800)] == ["no caption"]
    assert not list(picture._caption_lines(Example("k", "p", 0), 800))


@given(st.integers(0, 1000), st.integers(1, 12))
def test_labels_lie_in_the_picture_whatever_the_boxes(seed, tags):
    size = (900, 600)
    for mark in picture._marks(an_example(size, tags, seed), 1.0):
        places = list(picture._label_places(mark.box, 200.0, 28.0, size))
        assert all(0 <= x <= size[0] - 200 and 0 <= y <= size[1] - 28 for x, y in places)


@given(st.text(max_size=200), st.floats(20, 500))
def test_wrapped_lines_fit_and_lose_no_word_that_fits(text, width):
    lines = list(picture._wrapped(text, width))
    font = picture._font(16)
    assert all(font.getlength(line) <= width or line == "…" for line in lines)
    if all(font.getlength(word) <= width for word in text.split()):
        assert " ".join(lines).split() == text.split()
