import json

import pytest

from tagmill.runners.commands.vocabulary_describe import describe
from tagmill.tag_system import descriptions
from tagmill.tag_system.builder.glosses import sense_of
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Origin, Tag
from wordnet_corpus import needs_wordnet

pytestmark = needs_wordnet


def test_without_a_server_wordnet_and_templates_describe_and_it_is_said(tmp_path, capsys) -> None:
    tags, output = tmp_path / "tags.tsv", tmp_path / "out.json"
    tags.write_text("dog\tobject\tpooch\nred dog\njava\tobject\t\t\tcoffee.n.01\n")
    describe(str(tags), output=output)
    assert "3 tags, 51 texts each, by WordNet's glosses and templates" in capsys.readouterr().out
    dog, red, java = descriptions.read(output, ["dog", "red dog", "java"])
    assert [len(set(texts)) for texts in (dog, red, java)] == [51, 51, 51]
    assert dog[0] == "a photo of a dog."
    assert dog[1].startswith("dog: a member of the genus Canis")
    assert "a photo of a pooch." in dog
    assert java[1].startswith("java: a beverage")
    origin = json.loads(output.with_suffix(".origin.json").read_text())
    assert origin["templates_alone"] == ["red dog"]


def test_more_texts_than_there_are_is_an_error(tmp_path) -> None:
    (tmp_path / "tags.txt").write_text("dog\n")
    with pytest.raises(ConfigError, match="there are 64 texts for a tag, not 66"):
        describe(str(tmp_path / "tags.txt"), output=tmp_path / "out.json", answers=13)


@pytest.mark.parametrize("synset", ["bogus.n.01", "bogus"])
def test_a_synset_that_wordnet_does_not_have_is_named(synset) -> None:
    tag = Tag(0, "dog", "object", origin=Origin(synset=synset))
    with pytest.raises(ConfigError, match=f"WordNet has no synset '{synset}'"):
        sense_of(tag)
