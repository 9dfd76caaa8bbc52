"""Word forms, and longest match of phrases over a sentence whose words have several forms."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_DOUBLING = re.compile(r"(?:[^aeiou]|qu)*[aeiou][bdgklmnprt]")


class Arc(NamedTuple):
    """One reading of a sentence at a position: `word` covers so many positions."""

    word: str
    length: int = 1


class Match(NamedTuple, Generic[T]):
    """`value` of a phrase that covers the positions up to `end`, exclusive."""

    end: int
    value: T


class PhraseTrie(Generic[T]):
    """Phrases (sequences of words), each with the values added for it, in the order of adding."""

    __slots__ = ("_children", "_values")

    def __init__(self, phrases: Iterable[tuple[Sequence[str], T]] = ()) -> None:
        self._children: dict[str, PhraseTrie[T]] = {}
        self._values: list[T] = []
        for words, value in phrases:
            self.add(words, value)

    def add(self, words: Sequence[str], value: T) -> None:
        """Add one phrase; a phrase without words is a ValueError."""
        if not words:
            raise ValueError("a phrase needs at least one word")
        node = self
        for word in words:
            node = node._children.setdefault(word, PhraseTrie())
        node._values.append(value)

    def words(self) -> set[str]:
        """Every word that occurs in a phrase."""
        found: set[str] = set()
        nodes = [self]
        while nodes:
            children = nodes.pop()._children
            found.update(children)
            nodes.extend(children.values())
        return found

    def values(self, words: Sequence[str]) -> Sequence[T]:
        """The values of exactly this phrase."""
        node = self
        for word in words:
            child = node._children.get(word)
            if child is None:
                return ()
            node = child
        return node._values

    def longest(
        self,
        lattice: Sequence[Sequence[Arc]],
        start: int,
        accept: Callable[[T, int, int], bool] = lambda value, start, end: True,
    ) -> Match[T] | None:
        """The accepted phrase that begins at `start` and reaches furthest, or None.

        `lattice[i]` holds the readings that begin at position i, the preferred ones first; among
        phrases of one length the first reading wins, then the value added first. `accept(value,
        start, end)` may refuse a phrase.
        """
        best: Match[T] | None = None
        for word, length in lattice[start]:
            node = self._children.get(word)
            if node is not None:
                best = node._extend(lattice, start, start + length, accept, best)
        return best

    def _extend(
        self,
        lattice: Sequence[Sequence[Arc]],
        start: int,
        end: int,
        accept: Callable[[T, int, int], bool],
        best: Match[T] | None,
    ) -> Match[T] | None:
        if best is None or end > best.end:
            for value in self._values:
                if accept(value, start, end):
                    best = Match(end, value)
                    break
        if self._children and end < len(lattice):
            for word, length in lattice[end]:
                node = self._children.get(word)
                if node is not None:
                    best = node._extend(lattice, start, end + length, accept, best)
        return best


def noun_bases(word: str) -> Iterator[str]:
    """The singulars that a lower-case noun may be a plural of, the likeliest first."""
    if len(word) > 4 and word.endswith("men"):
        yield word[:-2] + "an"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        yield word[:-1]
        if word.endswith("ies"):
            yield word[:-3] + "y"
        elif word.endswith("ves"):
            yield from (word[:-3] + "f", word[:-3] + "fe")
        elif word.endswith("es"):
            yield word[:-2]


def verb_bases(word: str) -> Iterator[str]:
    """The infinitives that a lower-case verb form may belong to, the likeliest first."""
    for ending in ("ing", "ed", "es", "s"):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 2:
            continue
        if ending in ("ing", "ed") and len(stem) > 2 and stem[-1] == stem[-2]:
            yield stem[:-1]
        if stem.endswith("y") and ending == "ing":
            yield stem[:-1] + "ie"
        if stem.endswith("i") and ending in ("ed", "es"):
            yield stem[:-1] + "y"
        if stem.endswith("ng"):  # "singing" is sing before singe, though "changing" is change
            yield stem
        if ending != "s":
            yield stem + "e"
        yield stem
        return


def gerund(verb: str) -> str:
    """The -ing form of an infinitive: make, making; run, running; lie, lying."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    if _DOUBLING.fullmatch(verb):
        return verb + verb[-1] + "ing"
    return verb + "ing"


def is_base(verb: str, form: str) -> bool:
    """Whether an infinitive agrees with its -ing or -ed form: ride with riding, not rid, whose d doubles."""
    return not _DOUBLING.fullmatch(verb) or form not in (verb + "ing", verb + "ed")
