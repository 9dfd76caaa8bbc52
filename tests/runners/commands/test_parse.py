import json

import pytest

from commands import call
from tagmill.tag_system.core.errors import ConfigError


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "tags.tsv"
    path.write_text("man\nride\taction\nread\taction\nhorse\nbeach\tscene\ncar\ndog\npark\tscene\n")
    return str(path)


def test_tags_are_marked_and_the_rest_has_reasons(vocabulary):
    out, _ = call("parse", "a man riding a horse past a hot dog without cars", "--vocabulary", vocabulary)
    first, *lines = out.splitlines()
    assert first == "a [man] [riding] a [horse] past a hot dog without cars"
    assert "  riding: ride, action" in lines
    assert "  dog: no tag, part of 'hot dog', which is something else" in lines
    assert "  cars: no tag, car is denied" in lines


@pytest.mark.parametrize("mode", ["default", "fast"])
def test_a_file_as_json(vocabulary, tmp_path, mode):
    (tmp_path / "captions.txt").write_text("a dog\n\na man parked a car\n")
    arguments = ["--file", tmp_path / "captions.txt", "--vocabulary", vocabulary, "--mode", mode, "--json"]
    first, second = map(json.loads, call("parse", *arguments)[0].splitlines())
    assert first["mentions"] == [{"tag": "dog", "kind": "object", "surface": "dog", "start": 2, "end": 5}]
    assert [mention["tag"] for mention in second["mentions"]] == ["man", "car"]
    assert second["unmatched"] == [
        {"surface": "parked", "start": 6, "end": 12, "reason": "park is a scene, and this is a verb"}
    ]


def test_a_word_in_another_sense_is_said_to_be(vocabulary):
    out, _ = call("parse", "a sign that reads go", "--vocabulary", vocabulary)
    assert "  reads: no tag, read is meant in another sense" in out.splitlines()


def test_captions_and_a_file_are_too_much(tmp_path):
    from tagmill.runners.commands.parse import parse

    with pytest.raises(ConfigError, match="not both"):
        parse(["a dog"], file=tmp_path / "captions.txt")
