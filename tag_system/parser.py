"""Captions to tags: which tags of a vocabulary a caption states, and where it states them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from tagmill.tag_system.kinds import Kind
from tagmill.tag_system.lexicon_reader import LexiconReader
from tagmill.tag_system.matching import Arc, PhraseTrie
from tagmill.tag_system.senses import CONTEXTS, IDIOMS, NEGATORS, OPAQUE, fits, is_color, is_done, negated
from tagmill.tag_system.spacy_reader import DEFAULT_SPACY_MODEL, SpacyReader, load_pipeline
from tagmill.tag_system.vocabulary import Tag, Vocabulary, normalize_name
from tagmill.tag_system.words import (
    ADJECTIVE,
    NOUN,
    OTHER,
    VERB,
    WORD,
    Form,
    Reader,
    TokenizedCaption,
    plain_text,
    without_accents,
)

__all__ = [
    "DEFAULT_SPACY_MODEL",
    "CaptionParser",
    "Mode",
    "TagMention",
    "Unmatched",
    "load_pipeline",
    "plain_text",
]

Mode = Literal["default", "fast"]
"""How words get their classes: by a spaCy pipeline, or by a lexicon, faster and less exact."""

PARSER_VERSION = 5
"""Raised whenever the same caption and vocabulary may give other mentions."""

_CLASS: dict[Kind, str] = {"object": NOUN, "scene": NOUN, "attribute": ADJECTIVE, "action": VERB}
_CALLED = {"NOUN": "a noun", "VERB": "a verb", "ADJ": "an adjective", "ADV": "an adverb", "scene": "a scene"}


@dataclass(frozen=True)
class TagMention:
    """A tag stated at `caption[start:end] == surface`; `tag` is its canonical name.

    `kind` is the tag's, but for a thing that is said as a colour, which is an attribute (an orange vest),
    or as what is done with it, which is an action (skateboarding).
    """

    tag: str
    kind: Kind
    surface: str
    start: int
    end: int


@dataclass(frozen=True)
class Opaque:
    """A compound that hides its words, apart from the last `visible` ones."""

    visible: int


@dataclass(frozen=True)
class Sense:
    """A word that means the tag where one of `near` is in the caption."""

    tag: Tag
    near: frozenset[str]


Entry = Tag | Opaque | Sense


class PhraseMatch(NamedTuple):
    """A phrase over the words from `first` up to `end`, exclusive, with its tag if it has one."""

    entry: Tag | Opaque
    first: int
    end: int


class Unmatched(NamedTuple):
    """A word of a caption that gives no tag, and why."""

    surface: str
    start: int
    end: int
    reason: str


class CaptionParser:
    """Finds the tags of `vocabulary` in English captions.

    `spacy_model` is the name of an installed spaCy pipeline or a path to one; the mode `fast` does without.
    Constructing is cheap; the pipeline is read by `load` or by the first `parse`. Pickles without it.

    Examples:
        >>> parser = CaptionParser(Vocabulary.load(), mode="fast")
        >>> (mentions,) = parser.parse(["two dogs on a red sofa"])
        >>> [(mention.tag, mention.surface) for mention in mentions]
        [('dog', 'dogs'), ('red', 'red'), ('couch', 'sofa')]
        >>> parser.parse(["a room without a sofa"])[0][0].tag
        'room'
    """

    def __init__(
        self, vocabulary: Vocabulary, spacy_model: str = DEFAULT_SPACY_MODEL, mode: Mode = "default"
    ) -> None:
        self.vocabulary = vocabulary
        self.spacy_model = spacy_model
        self.mode: Mode = mode
        self._trie, self._known, self._colors = _tables(vocabulary)
        self._reader: Reader = (
            SpacyReader(spacy_model, self._known.__contains__)
            if mode == "default"
            else LexiconReader(self._known.__contains__)
        )

    def __reduce__(self) -> tuple[type["CaptionParser"], tuple[Vocabulary, str, Mode]]:
        return CaptionParser, (self.vocabulary, self.spacy_model, self.mode)

    def load(self) -> None:
        """Read the spaCy pipeline; ConfigError if it is not installed."""
        self._reader.load()

    def fingerprint(self) -> str:
        """Names the rules and the language model, without the vocabulary; may load the pipeline."""
        return f"caption-parser-{PARSER_VERSION}/{self._reader.fingerprint()}"

    def parse(self, captions: Sequence[str]) -> list[list[TagMention]]:
        """The mentions of each caption, ordered by `start`, not overlapping."""
        readings = self._reader.read([plain_text(caption) for caption in captions])
        return [self._mentions(caption, reading) for caption, reading in zip(captions, readings, strict=True)]

    def explain(self, caption: str) -> tuple[list[TagMention], list[Unmatched]]:
        """The mentions of a caption, and each word of some meaning that gives none."""
        (reading,) = self._reader.read([plain_text(caption)])
        denied = negated(reading.forms)
        reasons: dict[int, str] = {}
        for entry, first, end in self._find(reading):
            phrase = caption[reading.spans[first][0] : reading.spans[end - 1][1]]
            for position in range(first, end):
                if isinstance(entry, Opaque):
                    reasons[position] = f"part of {phrase!r}, which is something else"
                else:
                    reasons[position] = f"{entry.name} is denied" if first in denied else ""
        unmatched = []
        for position, (form, (start, stop)) in enumerate(zip(*reading, strict=True)):
            reason = reasons.get(position) if position in reasons else self._refusal(form)
            if reason:
                unmatched.append(Unmatched(caption[start:stop], start, stop, reason))
        return self._mentions(caption, reading), unmatched

    def _refusal(self, form: Form) -> str:
        """Why a word outside all phrases gives no tag; nothing for words such as "the"."""
        if form.group == OTHER:
            return ""
        values = (value for arc in form.arcs for value in self._trie.values([arc.word]))
        if tags := [value for value in values if isinstance(value, Tag)]:
            name, kind = tags[0].name, tags[0].kind
            if form.group == _CLASS[kind]:
                return f"{name} is meant in another sense"
            return f"{name} is {_CALLED.get(kind, f'an {kind}')}, and this is {_CALLED[form.group]}"
        return "not in the vocabulary"

    def _mentions(self, caption: str, reading: TokenizedCaption) -> list[TagMention]:
        forms, spans = reading
        denied = negated(forms) if any(form.text in NEGATORS for form in forms) else ()
        found = []
        for entry, first, end in self._find(reading):
            if isinstance(entry, Tag) and first not in denied:
                start, stop = spans[first][0], spans[end - 1][1]
                kind = _said_as(entry, forms, first) if end == first + 1 else entry.kind
                found.append(TagMention(entry.name, kind, caption[start:stop], start, stop))
        return found

    def _find(self, reading: TokenizedCaption) -> Iterator[PhraseMatch]:
        """The longest phrases from left to right, negated or not."""
        forms = reading.forms
        lattice = self._lattice(reading)
        colors = self._colors

        def accept(entry: Entry, start: int, end: int) -> bool:
            if isinstance(entry, Tag):
                return fits(entry, forms, start, end, has_color=entry.name in colors)
            if isinstance(entry, Sense):
                near = any(form.lemma in entry.near or form.text in entry.near for form in forms)
                return near and fits(entry.tag, forms, start, end, has_color=False)
            return True

        position = 0
        while position < len(forms):
            match = self._trie.longest(lattice, position, accept) if lattice[position] else None
            if match is None:
                position += 1
                continue
            entry = match.value.tag if isinstance(match.value, Sense) else match.value
            yield PhraseMatch(entry, position, match.end)
            visible = entry.visible if isinstance(entry, Opaque) else 0
            position = max(position + 1, match.end - visible)

    def _lattice(self, reading: TokenizedCaption) -> list[Sequence[Arc]]:
        forms, known = reading.forms, self._known
        lattice: list[Sequence[Arc]] = [form.arcs for form in forms]
        for position in range(len(forms) - 1):
            form, after = forms[position], forms[position + 1]
            # "skate board" is a skateboard, "down town" is downtown; function words do not join.
            if form.group == OTHER or after.group == OTHER or len(form.text) < 2:
                continue
            for joined in (form.text + after.text, form.text + after.lemma):
                if joined in known:  # before the words apart: "cup cake" is a cupcake, no hidden cup
                    lattice[position] = (Arc(joined, 2), *lattice[position])
        return lattice


def _said_as(tag: Tag, forms: Sequence[Form], position: int) -> Kind:
    if is_color(forms, position):
        return "attribute"
    return "action" if tag.kind == "object" and is_done(tag, forms[position]) else tag.kind


@lru_cache(maxsize=2)  # one parser is made again and again, where it is pickled
def _tables(vocabulary: Vocabulary) -> tuple[PhraseTrie[Entry], frozenset[str], frozenset[str]]:
    """All phrases, the words in them, and the colours."""
    trie = _build_trie(vocabulary)
    return trie, frozenset(trie.words()), _colors(vocabulary)


def _build_trie(vocabulary: Vocabulary) -> PhraseTrie[Entry]:
    trie: PhraseTrie[Entry] = PhraseTrie()
    for line in CONTEXTS.strip().splitlines():  # before the plain senses of the words
        word, name, near = re.split(r" = |: ", line)
        if (found := vocabulary.resolve(name)) is not None:
            trie.add([word], Sense(found, frozenset(near.split())))
    for tag in vocabulary:
        for name in (tag.name, *tag.aliases):
            plain = without_accents(_no_possessive(normalize_name(name)))
            words = [word.group() for word in WORD.finditer(plain)]
            if words:
                trie.add(words, tag)
            # The fruit has the plain name; the colour answers to it where an adjective stands.
            if _is_color(tag, words):
                trie.add(words[:1], tag)
    for phrase in (OPAQUE + "|" + IDIOMS).replace("\n", "").split("|"):
        _, plus, _ = phrase.partition("+")
        trie.add(phrase.replace("+", "").split(), Opaque(visible=1 if plus else 0))
    return trie


def _colors(vocabulary: Vocabulary) -> frozenset[str]:
    """The things after which colours are called that are tags themselves."""
    names = (normalize_name(tag.name).split() for tag in vocabulary if tag.kind == "attribute")
    return frozenset(words[0] for words in names if len(words) == 2 and words[1] == "color")


def _is_color(tag: Tag, words: Sequence[str]) -> bool:
    return tag.kind == "attribute" and len(words) == 2 and words[1] == "color"


def _no_possessive(name: str) -> str:
    return re.sub(r"['\u2019]s?\b|(?<=s)['\u2019]", "", name)
