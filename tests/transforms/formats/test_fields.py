"""Which fields of an example hold its captions and its image."""

import pytest

from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.formats.fields import MAX_NAMES, FieldCounts, caption_names, captions_of, image_name


def config(**changes):
    return InputConfig(name="x", format="jsonl", path="unused", **changes)


TALK = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A cat."},
    {"from": "human", "value": "Sure?"},
    {"from": "gpt", "value": "<image> Yes, a cat."},
]


@pytest.mark.parametrize(
    ("fields", "named", "captions"),
    [
        ({"caption": "b", "captions": ["a"], "text": "c"}, None, ["a", "b"]),
        ({"caption": None, "TEXT": "c", "alt": "d"}, None, ["c"]),
        ({"title": "t"}, None, []),
        ({"title": "t", "caption": "c", "x": ["u", 3]}, ["x", "title"], ["u", 3, "t"]),
        ({"caption": "c"}, [], []),
        ({"sentences": [{"raw": "a", "tokens": ["a"]}, {"raw": "b"}]}, None, ["a", "b"]),
        ({"conversations": TALK}, None, ["A cat.", "Yes, a cat."]),
        (
            {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]},
            None,
            ["!"],
        ),
        ({"captions": [{"en": "x"}, ["y"]]}, None, [{"en": "x"}, ["y"]]),
    ],
    ids=str,
)
def test_named_fields_or_the_usual_ones_give_the_captions(fields, named, captions):
    assert captions_of(fields, config(captions=named)) == captions
    assert bool(caption_names(fields, config(captions=named))) == bool(captions)


def test_the_image_is_the_named_field_or_the_first_usual_one():
    fields = {"url": "u", "filename": "b.jpg", "image": None, "photo": "c.jpg"}
    assert image_name(fields, config()) == "filename"
    assert image_name(fields, config(image=["x", "photo"])) == "photo"
    assert image_name(fields, config(image=["x"])) is None


def test_names_that_are_counted_are_bounded_but_for_those_that_the_input_names():
    counts = FieldCounts(config(captions=["last"]))
    counts.add([f"n{number}" for number in range(1_000)] + ["last"], ["last"], captioned=True)
    assert len(counts.seen) == MAX_NAMES + 1
    said = counts.to_json()
    assert (said["examples"], said["captioned"], said["seen"]["last"], said["used"]) == (1, 1, 1, {"last": 1})
