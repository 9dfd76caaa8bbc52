"""The words of a caption as the parser sees them, whoever says what class they have."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tagmill.tag_system.matching import Arc, gerund, is_base, noun_bases, verb_bases

NOUN, ADJECTIVE, VERB, ADVERB, OTHER = "NOUN", "ADJ", "VERB", "ADV", "OTHER"

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")

_GROUPS = {
    **dict.fromkeys(("NOUN", "PROPN", "X", "INTJ", "SYM"), NOUN),
    **{group: group for group in (ADJECTIVE, VERB, ADVERB)},
}
_PERSONS = {"someone", "somebody", "everyone", "everybody", "anyone", "anybody"}
_POSSESSIVE_END = re.compile(r"['\u2019]s?$")


@dataclass(frozen=True, slots=True)
class Form:
    """A word in one of its classes; `text` and `lemma` are lower case, `pos` is spaCy's, `group` coarser.

    `arcs` are the names under which a vocabulary may know it, the preferred one first.
    """

    text: str
    lemma: str
    pos: str
    group: str
    arcs: tuple[Arc, ...] = ()


STOP = Form(".", ".", "PUNCT", OTHER)
"""Stands for punctuation, which no phrase crosses."""


class TokenizedCaption(NamedTuple):
    """The words of a caption, and where each stands in it."""

    forms: Sequence[Form]
    spans: Sequence[tuple[int, int]]


class Reader(Protocol):
    """Finds the words of captions and their classes."""

    def load(self) -> None:
        """Read whatever it needs, once."""

    def fingerprint(self) -> str:
        """Name what the classes depend on."""

    def read(self, captions: Sequence[str]) -> Iterator[TokenizedCaption]:
        """The reading of each caption, in their order."""


Known = Callable[[str], bool]
"""Whether a word occurs in any name of a vocabulary."""


def make_form(text: str, lemma: str, pos: str, known: Known) -> Form:
    """The form of a word in any spelling; names that no vocabulary has are left out."""
    low = without_accents(_POSSESSIVE_END.sub("", text.lower()))
    group = NOUN if low in _PERSONS else _GROUPS.get(pos, OTHER)
    names = _names(low, lemma.lower(), group)
    return Form(low, lemma.lower(), pos, group, tuple(Arc(name) for name in names if known(name)))


def without_accents(word: str) -> str:
    """The word as names are mostly written: a café is a cafe."""
    if word.isascii():
        return word
    return "".join(char for char in unicodedata.normalize("NFKD", word) if not unicodedata.combining(char))


def _names(text: str, lemma: str, group: str) -> Iterator[str]:
    """What a word may be called in a vocabulary, the preferred form first.

    The model's lemma is not enough: it makes "rid" of "riding" and knows no names such as "parking".
    """
    found: list[str] = []
    if group == VERB or (group == ADJECTIVE and text.endswith(("ed", "ing"))):
        bases = [base for base in (lemma, *verb_bases(text)) if is_base(base, text)]
        # The infinitive first: where "walk" and "walking" are two tags, the first is what is done.
        found = [*bases, text, *map(gerund, bases)] if group == VERB else [text, *bases]
    else:
        bases = list(noun_bases(text))
        # Rules make "vas" of "vases" too; where both are names the longer is meant.
        found = [text, *bases[:1], lemma, *bases] if lemma == text[:-2] else [text, lemma, *bases]
        if text.endswith("ing"):  # "a man in red walking": often taken for a noun
            found += [base for base in verb_bases(text) if is_base(base, text)]
    yield from dict.fromkeys(found)


def plain_text(caption: str) -> str:
    """The caption as a tagger reads it best, character for character as long as before.

    Captions in capitals or In Title Case are lowered, else every word looks like a name.
    """
    if caption.isascii():
        if caption[1:].islower():
            return caption
        text = caption
    else:
        text = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in caption)
    words = [word for word in WORD.findall(text) if len(word) > 3]
    if len(words) > 1 and sum(word[0].isupper() for word in words) > 0.8 * len(words):
        return "".join(low if len(low := char.lower()) == 1 else char for char in text)
    return text
