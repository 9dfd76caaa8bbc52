import json

import pytest

from sources import encode, square_image, write_tar
from stage_runs import SQUARES, Bench, as_json, example, ingest_part, part, shared
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import bitmaps, caption
from tagmill.transforms.parse import SCHEMA, Parse, ParseConfig
from tagmill.transforms.parts import Inputs


@pytest.fixture
def parse(tmp_path):
    def parse(*captions):
        contents = []
        for number, found in enumerate(captions):
            contents.append((f"{number}.png", encode(square_image(["red"], number))))
            contents.append((f"{number}.json", as_json({"captions": found})))
        bench = Bench(tmp_path / "run")
        bench.ingest(write_tar(tmp_path / "a.tar", contents))
        (made,) = bench.run(Parse(ParseConfig(), bench.shared, bench.vocabulary))
        return made

    return parse


def test_every_living_caption_has_a_row_with_its_index(parse):
    part = parse(["a red square", "", "two blue squares"], [], [None, "nothing"], ["a tidy red square"])
    assert part.table.schema.equals(SCHEMA)
    assert {r["source"] for r in part.records} == {"given"}
    found = [(r["row"], r["caption_index"], sorted(m["tag"] for m in r["mentions"])) for r in part.records]
    assert found[:3] == [(0, 0, ["red"]), (0, 2, ["blue"]), (2, 1, [])]
    assert found[3][:2] == (3, 0)
    assert "red" in found[3][2]


def test_an_example_without_captions_lives(parse):
    part = parse([], ["a red square"])
    assert part.header.lost == 0
    assert part.header.counts.of("example") == {"in": 2, "out": 2, "dropped": 0, "dead": 0}
    assert part.header.counts.of("caption") == {"in": 1, "out": 1, "dropped": 0, "dead": 0}


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


def test_generated_captions_are_parsed_after_the_given_and_count_as_no_ones_captions():
    generated = [{"row": 0, "caption": "a blue square"}, {"row": 2, "caption": "two green squares"}]
    read = {
        "ingest": ingest_part(
            example(0, captions=["a red square", None, "nothing"]),
            example(1, captions=["a purple square"]),
            example(2),
            example(3, captions=["a red square"]),
        ),
        "caption": part("caption", caption.SCHEMA, generated),
    }
    stage = Parse(ParseConfig(), shared(), SQUARES)
    stage.setup()
    output = stage.process(Inputs("p", read, {}, "", bitmaps.of([3])))
    found = [
        (r["row"], r["source"], r["caption_index"], [m["tag"] for m in r["mentions"]])
        for r in output.table.to_pylist()
    ]
    assert found == [
        (0, "given", 0, ["red"]),
        (0, "given", 2, []),
        (0, "generated", 0, ["blue"]),
        (1, "given", 0, ["purple"]),
        (2, "generated", 0, ["green"]),
    ]
    assert (output.examples, output.captions) == (3, 3)


def test_vocabulary_and_parser_are_the_spec():
    spec = Parse(ParseConfig(), shared(), SQUARES).spec
    assert spec.keys() == {"config", "parser", "vocabulary"}
    assert spec["vocabulary"] == SQUARES.digest
    assert json.loads(json.dumps(spec)) == spec
    assert Parse(ParseConfig(), shared(), Vocabulary.from_text("red", "x")).spec != spec
    assert Parse(ParseConfig(mode="fast"), shared(), SQUARES).spec != spec
    assert Parse(ParseConfig(), shared(part_size=9, threads=3), SQUARES).spec == spec
