import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagmill.tag_system.matching import (
    Arc,
    Match,
    PhraseTrie,
    gerund,
    noun_bases,
    verb_bases,
)


def lattice(*positions: str) -> list[list[Arc]]:
    return [[Arc(form) for form in forms.split("|") if form] for i, forms in enumerate(positions)]


PHRASES = ["hot dog", "dog", "dog house", "tennis racket", "tennis racket bag", "ride", "rid"]
TRIE = PhraseTrie([(phrase.split(), phrase) for phrase in PHRASES])


@pytest.mark.parametrize(
    ("words", "start", "match"),
    [
        pytest.param(["hot", "dogs|dog", "stand"], 0, Match(2, "hot dog"), id="longest"),
        pytest.param(["hot", "dog"], 1, Match(2, "dog"), id="from inside"),
        pytest.param(["tennis", "racket", "case"], 0, Match(2, "tennis racket"), id="shorter"),
        pytest.param(["tennis", "ball"], 0, None, id="only a beginning"),
        pytest.param(["riding|ride|rid"], 0, Match(1, "ride"), id="preferred form"),
        pytest.param(["", "dog"], 0, None, id="no reading"),
    ],
)
def test_longest(words: list[str], start: int, match: Match[str] | None) -> None:
    assert TRIE.longest(lattice(*words), start) == match


def test_refused_phrases_leave_the_shorter_one() -> None:
    words = lattice("dog", "house")
    found = TRIE.longest(words, 0, lambda value, start, end: (start, end) != (0, 2))
    assert found == Match(1, "dog")


def test_values_of_one_phrase_in_the_order_of_adding() -> None:
    trie = PhraseTrie([(["ski"], "thing"), (["ski"], "action")])
    assert trie.longest(lattice("ski"), 0) == Match(1, "thing")
    assert trie.longest(lattice("ski"), 0, lambda value, *_: value == "action") == Match(1, "action")


def test_an_arc_may_cover_several_words() -> None:
    trie = PhraseTrie([(["skateboard", "ramp"], "ramp")])
    words = [[Arc("skate"), Arc("skateboard", 2)], [Arc("board")], [Arc("ramp")]]
    assert trie.longest(words, 0) == Match(3, "ramp")


def test_words_and_empty_phrases() -> None:
    assert TRIE.words() == {word for phrase in PHRASES for word in phrase.split()}
    with pytest.raises(ValueError, match="at least one word"):
        TRIE.add([], "nothing")


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=8),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
)
def test_longest_agrees_with_a_search(phrases: list[list[str]], words: list[str]) -> None:
    trie = PhraseTrie([(phrase, tuple(phrase)) for phrase in phrases])
    lengths = [len(phrase) for phrase in phrases if words[: len(phrase)] == phrase]
    found = trie.longest(lattice(*words), 0)
    assert (found.end if found else 0) == max(lengths, default=0)


@pytest.mark.parametrize(
    ("word", "base"),
    [("dogs", "dog"), ("berries", "berry"), ("knives", "knife"), ("boxes", "box"), ("leaves", "leaf")],
)
def test_noun_bases(word: str, base: str) -> None:
    assert base in noun_bases(word)


@pytest.mark.parametrize("word", ["glass", "gas", "dog", "s", ""])
def test_nouns_that_are_no_plurals(word: str) -> None:
    assert list(noun_bases(word)) == []


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("riding", "ride"),
        ("running", "run"),
        ("lying", "lie"),
        ("parked", "park"),
        ("carries", "carry"),
        ("hurried", "hurry"),
        ("watches", "watch"),
        ("sits", "sit"),
        ("skiing", "ski"),
    ],
)
def test_verb_bases_and_back(word: str, base: str) -> None:
    assert base in verb_bases(word)
    if word.endswith("ing"):
        assert gerund(base) == word


@pytest.mark.parametrize("word", ["sing", "red", "is", "", "go"])
def test_short_words_are_no_verb_forms(word: str) -> None:
    assert list(verb_bases(word)) == []
