import json

import pytest

from sources import encode, square_image, write_tar
from stage_runs import Bench, as_json, shared
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.parse import SCHEMA, Parse, ParseConfig


@pytest.fixture
def parse(tmp_path):
    def parse(*captions):
        contents = []
        for number, found in enumerate(captions):
            contents.append((f"{number}.png", encode(square_image(["red"], number))))
            contents.append((f"{number}.json", as_json({"captions": found})))
        bench = Bench(tmp_path / "run")
        bench.ingest(write_tar(tmp_path / "a.tar", contents))
        (part,) = bench.run(Parse(ParseConfig(), bench.shared))
        return part

    return parse


def test_every_living_caption_has_a_row_with_its_index(parse):
    part = parse(["a red square", "", "two blue squares"], [], [None, "nothing"], ["a tidy red square"])
    assert part.table.schema.equals(SCHEMA)
    found = [(r["row"], r["caption_index"], sorted(m["tag"] for m in r["mentions"])) for r in part.records]
    assert found[:3] == [(0, 0, ["red"]), (0, 2, ["blue"]), (2, 1, [])]
    assert found[3][:2] == (3, 0)
    assert "red" in found[3][2]


def test_an_example_without_captions_lives(parse):
    part = parse([], ["a red square"])
    assert part.header.gone == []
    assert part.header.counts["example"] == {"in": 2, "out": 2, "dropped": 0, "dead": 0}
    assert part.header.counts["caption"] == {"in": 1, "out": 1, "dropped": 0, "dead": 0}


def test_a_part_without_any_caption(parse):
    part = parse([], [])
    assert part.records == part.of_row(0) == []


@pytest.mark.parametrize(
    "caption",
    [
        "😀 a red square 👩‍👩‍👧",
        "e\u0301 red square",
        "\u202ea red square",
        "<b>a red square</b> &amp;",
        "a\0 red square",
    ],
    ids=ascii,
)
def test_spans_count_characters_of_the_caption(parse, caption):
    part = parse([caption])
    for mention in part.records[0]["mentions"]:
        assert caption[mention["start"] : mention["end"]] == mention["surface"]
    assert [m["tag"] for m in part.records[0]["mentions"]] == ["red"]


def test_vocabulary_and_parser_are_the_meaning():
    meaning = Parse(ParseConfig(), shared()).meaning
    assert json.loads(json.dumps(meaning)) == meaning
    assert Parse(ParseConfig(), shared(Vocabulary.from_text("red", "x"))).meaning != meaning
    assert Parse(ParseConfig(), shared(part_size=9, threads=3)).meaning == meaning
