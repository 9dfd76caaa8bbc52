import pytest

from tagmill.tag_system.builder import build, rules, wordnet
from tagmill.tag_system.builder.aliases import other_names
from tagmill.tag_system.builder.counts import PhraseCounts
from tagmill.tag_system.builder.evidence import NameEvidence
from tagmill.tag_system.builder.lists import CategoryList
from tagmill.tag_system.builder.norms import Norms
from tagmill.tag_system.builder.ram import import_ram
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Tag, Vocabulary
from wordnet_corpus import SHARED, needs_wordnet

pytestmark = needs_wordnet

THINGS = CategoryList("things", "things.txt")


def evidence(norms: Norms | None = None, **nouns: int) -> NameEvidence:
    counts = PhraseCounts()
    counts.noun.update({name.replace("_", " "): said for name, said in nouns.items()})
    lists = {THINGS: frozenset({"gramophone"})}
    return NameEvidence(lists, frozenset({"gazebo"}), counts, lambda name: 3.0, norms or Norms())


def made(base: str, names: int, **nouns: int) -> Vocabulary:
    return build.build(evidence(**nouns), Vocabulary.from_text(base, "base"), names, ids=names)


def test_the_size_is_exact_and_the_ids_stay() -> None:
    old = Vocabulary.from_text("dog\t\tpup\ncat", "base")
    for names in (5, 6):
        new = build.build(evidence(sofa=5, ship=4, canoe=3, violin=2), old, names, names)
        assert sum(1 + len(tag.aliases) for tag in new) == names
        assert [tag.name for tag in new][:2] == ["dog", "cat"]


def test_every_tag_says_where_it_comes_from() -> None:
    tag = made("dog", 5, gazebo=3).resolve("gazebo")
    assert tag is not None
    assert tag.origin.synset == "gazebo.n.01"
    assert tag.origin.sources == ("imagenet-21k", "captions:3")
    assert tag.origin.rule == "noun"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        pytest.param("canoe", "noun object", id="a thing"),
        pytest.param("artifact", "", id="too general"),
        pytest.param("happiness", "", id="abstract"),
        pytest.param("china", "", id="a place's name"),
        pytest.param("still", "", id="mostly no noun"),
        pytest.param("black cat", "", id="an attribute and a thing"),
        pytest.param("bald eagle", "noun object", id="more than an attribute and a thing"),
        pytest.param("project", "", id="an act that nobody finds concrete"),
        pytest.param("tennis", "noun action", id="a sport"),
        pytest.param("german shepherd", "noun object", id="a breed with a capital"),
        pytest.param("halloween", "noun scene", id="a holiday"),
        pytest.param("buddhism", "", id="a faith"),
        pytest.param("hotel lobby", "phrase scene", id="a phrase that WordNet lacks"),
        pytest.param("rush hour", "", id="an abstract phrase"),
        pytest.param("water bottle", "noun object", id="a phrase of WordNet"),
        pytest.param("climb", "verb action", id="a verb"),
        pytest.param("learn", "", id="a verb that nobody sees"),
        pytest.param("wooden", "adjective attribute", id="an adjective"),
        pytest.param("sure", "", id="an adjective that nobody sees"),
    ],
)
def test_what_pictures_show(name: str, kept: str, ranked: dict[str, str]) -> None:
    assert ranked.get(name, "") == kept


@pytest.fixture(scope="module")
def ranked() -> dict[str, str]:
    ratings = {"tennis": 4.5, "happiness": 1.9, "project": 3.3, "bald eagle": 4.8, "hotel lobby": 4.7}
    ratings |= {"halloween": 3.2, "rush hour": 3.0, "climb": 4.0, "learn": 2.2, "wooden": 4.5, "sure": 1.7}
    said = ["canoe", "artifact", "china", "still", "black_cat", "german_shepherd", "buddhism", "halloween"]
    norms = Norms(ratings, bigrams={"hotel lobby": 10**6, "rush hour": 10**6})
    known = evidence(norms, **dict.fromkeys([*said, "happiness", "project", "water_bottle"], 5))
    known.counts.verb.update({"climb": 30, "learn": 30})
    known.counts.adjective.update({"wooden": 30, "sure": 30})
    found = rules.candidates(known, frozenset({"black", "bald"}))
    assert [one.mark for one in found] == sorted((one.mark for one in found), reverse=True)
    return {one.name: f"{one.rule} {one.kind}" for one in found}


def test_other_names_are_those_that_people_write() -> None:
    norms = Norms(dict.fromkeys(COMMON, 4.9), bigrams={"skate board": 10**6, "ca rpet": 10**6})
    known = NameEvidence({}, frozenset(), PhraseCounts(), lambda name: 4.0 if name in COMMON else 0.0, norms)
    tags = {"skateboard": "skate board", "carpet": "rug", "train": "training", "couch": "sofa"}
    for name, other in tags.items():
        kind = "action" if name == "train" else "object"
        sense = wordnet.sense_of(name, kind)
        found = [one for one, _ in other_names(Tag(0, name, kind), sense, known, frozenset())]
        assert found == [other]


COMMON = {"rug", "training", "sofa"}


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
