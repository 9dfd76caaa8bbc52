import os
from pathlib import Path

import pytest

from tagmill.tag_system.builder import build, rules
from tagmill.tag_system.builder.counts import Counts
from tagmill.tag_system.builder.lists import CategoryList
from tagmill.tag_system.builder.ram import import_ram
from tagmill.tag_system.builder.wordnet import reader
from tagmill.tag_system.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("NLTK_DATA", str(SHARED / "nltk_data"))
try:
    reader()
except ConfigError:
    pytest.skip("the WordNet corpus is not here", allow_module_level=True)

THINGS = CategoryList("things", "things.txt")


def evidence(**nouns: int) -> rules.Evidence:
    counts = Counts()
    counts.noun.update({name.replace("_", " "): said for name, said in nouns.items()})
    return rules.Evidence(
        {THINGS: frozenset({"gramophone"})}, frozenset({"gazebo"}), counts, lambda name: 3.0
    )


def made(base: str, names: int, **nouns: int) -> Vocabulary:
    return build.build(evidence(**nouns), Vocabulary.from_text(base, "base"), names, ids=names)


def test_the_size_is_exact_and_the_ids_stay() -> None:
    old = Vocabulary.from_text("dog\t\tpup\ncat", "base")
    for names in range(5, 8):
        new = build.build(evidence(sofa=5, ship=4, canoe=3, violin=2), old, names, names)
        assert sum(1 + len(tag.aliases) for tag in new) == names
        assert [tag.name for tag in new][:2] == ["dog", "cat"]


def test_every_tag_says_where_it_comes_from() -> None:
    tag = made("dog", 4, gazebo=3).resolve("gazebo")
    assert tag is not None
    assert tag.origin.synset == "gazebo.n.01"
    assert tag.origin.sources == ("imagenet-21k", "captions:3")
    assert tag.origin.rule == "noun"


NOUNS = {
    "canoe": True,
    "artifact": False,  # too general
    "happiness": False,  # abstract
    "china": False,  # a place's name
    "still": False,  # mostly no noun
    "black cat": False,  # an attribute and a thing
    "project": False,  # an act that is no sport
    "tennis": True,  # a sport
}


@pytest.fixture(scope="module")
def nouns() -> set[str]:
    """Candidates of captions that say each of NOUNS often."""
    said = evidence(**dict.fromkeys(NOUNS, 50))
    return {found.name for found in rules.noun_candidates(said, frozenset({"black"}))}


@pytest.mark.parametrize("name", NOUNS)
def test_nouns_that_pictures_show(nouns: set[str], name: str) -> None:
    assert (name in nouns) == NOUNS[name]


def test_too_little_evidence_is_said() -> None:
    with pytest.raises(ConfigError, match="give more captions"):
        made("dog", 6449)
    with pytest.raises(ConfigError, match="raise --names"):
        made("dog\ncat", 1)


def test_the_built_in_vocabulary_follows_the_decisions() -> None:
    built_in = Vocabulary.load()
    for decision in rules.read_decisions().values():
        tag = built_in.resolve(decision.name)
        if decision.verdict == "bar":
            assert tag is None
        elif decision.verdict == "alias":
            assert tag is built_in.resolve(decision.target) is not None
        else:
            assert tag is not None
            assert tag.kind == decision.verdict


def test_official_lists_keep_their_ids() -> None:
    names = ["dinning table", "t shirt", "t-shirt", "sofa", "theater", "sing"]
    made = import_ram(names, ["\u9910\u684c"] * 6, ["0.65"] * 6)
    assert [tag.name for tag in made] == ["dinning table", "t shirt", "t-shirt (2)", *names[3:]]
    dining, couch, theatre = (made.resolve(name) for name in ("dining table", "couch", "theatre"))
    assert dining is made[0]
    assert couch is made[3]
    assert theatre is made[4]
    assert [tag.kind for tag in made][::5] == ["object", "action"]
    assert (made[0].origin.chinese, made[0].origin.threshold) == ("\u9910\u684c", 0.65)
    with pytest.raises(ConfigError, match="6 tags but 1 Chinese names"):
        import_ram(names, ["x"])
    with pytest.raises(ConfigError, match="tag 0 is 'high'"):
        import_ram(["dog"], None, ["high"])


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        pytest.param("desk", "table", id="decided"),
        pytest.param("home plate", "home base", id="decided before plate takes it"),
        pytest.param("young woman", None, id="described by WordNet's phrase"),
        pytest.param("internet", None, id="barred"),
    ],
)
def test_official_names_have_the_aliases_that_are_meant(name: str, tag: str | None) -> None:
    found = import_ram(["table", "home base", "plate", "girl", "net"]).resolve(name)
    assert (found.name if found else None) == tag


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_the_official_list_is_imported_whole() -> None:
    lines = (SHARED / "ram_tags/ram_tag_list.txt").read_text(encoding="utf-8").split("\n")
    made = import_ram(lines)
    assert len(made) == len(lines) == 4585
    assert all(made.resolve(line) is not None for line in lines)
