"""Words and their classes by a lexicon and the words around, without a language model: for speed."""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tagmill.tag_system import lexicon
from tagmill.tag_system.lexicon import START, Lexicon, Use
from tagmill.tag_system.words import STOP, Form, Known, TokenizedCaption, make_form

# A word with its apostrophes, a hyphen inside a word, or any other sign.
_TOKEN = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|(?<=\w)[-_\u2010\u2011](?=\w)|[^\s]")
_HYPHENS = "-_\u2010\u2011"
_POSSESSIVES = frozenset("'\u2019")
_CONTRACTION = re.compile(r"(.+)(n['\u2019]t)$|(.+)(['\u2019](?:s|re|ve|ll|d|m))$", re.IGNORECASE)
_MOST_FORMS = 30_000
_UNSEEN = 0.5
_STOP_SCORES: dict[str, float] = {}


class _Option(NamedTuple):
    """A class that a word may have: its form, and how likely the word is as one."""

    pos: str
    form: Form
    score: float


class LexiconReader:
    """A `Reader` by the built-in lexicon, for words that `known` looks up."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._lexicon: Lexicon | None = None
        self._follows: dict[str, dict[str, float]] = {}
        self._options: dict[str, tuple[_Option, ...]] = {}

    def load(self) -> None:
        """Read the lexicon."""
        if self._lexicon is None:
            self._lexicon = lexicon.built_in()
            self._follows = _log_ratios(self._lexicon)

    def fingerprint(self) -> str:
        """A digest of the lexicon."""
        self.load()
        assert self._lexicon is not None
        return f"lexicon-{hashlib.sha256(self._lexicon.dump().encode()).hexdigest()[:12]}"

    def read(self, captions: Sequence[str]) -> Iterator[TokenizedCaption]:
        """The reading of each caption, in their order."""
        self.load()
        if len(self._options) > _MOST_FORMS:
            self._options.clear()
        for caption in captions:
            yield self._reading(caption)

    def _reading(self, caption: str) -> TokenizedCaption:
        words: list[tuple[_Option, ...]] = []
        spans: list[tuple[int, int]] = []
        known = self._options
        for token in _TOKEN.finditer(caption):
            text = token.group()
            options = known.get(text)
            if options is None:
                options = known[text] = self._look_up(text)
            if options:
                words.append(options)
                spans.append(token.span())
        return TokenizedCaption(self._choose(words), spans)

    def _choose(self, words: list[tuple[_Option, ...]]) -> list[Form]:
        """From left to right the class that fits the one before and the likeliest one after."""
        forms: list[Form] = []
        follows, before, last = self._follows, START, len(words) - 1
        for i, options in enumerate(words):
            best = options[0]
            if len(options) > 1:
                after = words[i + 1] if i < last else ()
                top = -math.inf
                for option in options:
                    pos = option.pos
                    ahead = follows.get(pos, _STOP_SCORES)
                    score = option.score + follows.get(before, _STOP_SCORES).get(pos, -3.0)
                    score += max(
                        [ahead.get(a.pos, -3.0) + a.score for a in after], default=ahead.get(START, -3.0)
                    )
                    if score > top:
                        best, top = option, score
            before = best.pos
            forms.append(best.form)
        return forms

    def _look_up(self, text: str) -> tuple[_Option, ...]:
        if text in _HYPHENS or text in _POSSESSIVES:
            return ()
        if not text[0].isalnum():
            return (_Option("PUNCT", STOP, 0.0),)
        low = text.lower()
        assert self._lexicon is not None
        stem, ending = _split(low)
        uses = self._lexicon.words.get(low) or self._lexicon.words.get(stem) or _guess(stem)
        if ending.endswith("t"):  # "isn't" denies what follows: its "not" is what counts
            uses, low = (Use("PART", 1, "not"),), "n't"
        total = sum(use.times for use in uses)
        return tuple(
            _Option(use.pos, make_form(low, use.lemma, use.pos, self._known), math.log(use.times / total))
            for use in uses
        )


def _split(word: str) -> tuple[str, str]:
    match = _CONTRACTION.fullmatch(word)
    if match is None:
        return word, ""
    return match[1] or match[3], match[2] or match[4]


def _guess(word: str) -> tuple[Use, ...]:
    """The classes of a word that the lexicon lacks, by its ending."""
    if word[0].isdigit():
        return (Use("NUM", 1, word),)
    for ending, pos in (("ing", "VERB"), ("ed", "VERB"), ("ly", "ADV"), ("ous", "ADJ"), ("ful", "ADJ")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return (Use(pos, 2, word), Use("NOUN", 1, word))
    return (Use("NOUN", 1, word),)


def _log_ratios(known: Lexicon) -> dict[str, dict[str, float]]:
    """How much likelier a class is after another than anywhere: log P(b | a) / P(b)."""
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for (a, b), count in known.pairs.items():
        before[a] = before.get(a, 0.0) + count
        after[b] = after.get(b, 0.0) + count
    total = sum(after.values())
    table: dict[str, dict[str, float]] = {}
    for a in before:
        table[a] = {
            b: math.log((known.pairs.get((a, b), 0) + _UNSEEN) * total / (before[a] * after[b]))
            for b in after
        }
    return table
