"""Which names become tags: the rules, and the marks that rank what passes them.

Every rule reads open evidence alone (captions, category lists, WordNet, word frequencies). What is decided
by hand stands in `decisions.tsv`, each line with its reason.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tagmill.tag_system.builder import wordnet
from tagmill.tag_system.builder.counts import Counts
from tagmill.tag_system.builder.lists import CategoryList
from tagmill.tag_system.errors import ConfigError
from tagmill.tag_system.vocabulary import KINDS, Kind, normalize_name

# Nouns of these classes are tags only if captions say them so often: the class holds much that no picture
# shows. Classes that stand nowhere here (state, cognition, attribute, time, quantity ...) are abstract.
_LEAST_SAID = {**dict.fromkeys(wordnet.CONCRETE, 0), "person": 2, "act": 4, "event": 8, "communication": 12}
_LEAST_SAID |= {"group": 12, "location": 12}
_KIND_OF_CLASS: dict[str, Kind] = {"act": "action", "event": "scene", "location": "scene"}
_MARKS = {"person": 0.0, "act": -0.3, "event": 0.0, "communication": -0.4, "group": -0.5, "location": -1.0}
_CONCRETE_MARK = 1.2

_LEAST_DEPTH = 5

_VISIBLE_VERBS = {"motion", "contact", "competition", "consumption", "body", "creation"}
_VERB_LEAST_SAID = 15
_NAME = re.compile(r"[a-z]{3,}(?: [a-z]+)*")


@dataclass(frozen=True)
class Evidence:
    """What the open sources say: the names of each list, ImageNet-21k's lemmas, the counts of captions, and
    `frequency`, how common a word is in English (Zipf's scale: 3 is once in a million words).
    """

    lists: dict[CategoryList, frozenset[str]]
    lemmas: frozenset[str]
    counts: Counts
    frequency: Callable[[str], float]

    def sources(self, name: str) -> tuple[str, ...]:
        """Every source that has the name, with the count where it counts."""
        found = [source.name for source, names in self.lists.items() if name in names]
        if name in self.lemmas:
            found.append("imagenet-21k")
        if said := self.counts.of(name):
            found.append(f"captions:{said}")
        return tuple(found)


@dataclass(frozen=True)
class Candidate:
    """A name that passed a rule; `mark` ranks it among those of the same rule."""

    name: str
    kind: Kind
    sense: Any | None
    rule: str
    mark: float


@dataclass(frozen=True)
class Decision:
    """A decision by hand on a name: it is `barred`, or is a tag of a kind, or an alias of `target`."""

    name: str
    verdict: str
    target: str
    reason: str


def read_decisions() -> dict[str, Decision]:
    """The exceptions that are made by hand; ConfigError for a line without a reason."""
    text = files("tagmill.tag_system.builder").joinpath("decisions.tsv").read_text(encoding="utf-8")
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 4 or not cells[3] or cells[1] not in ("bar", "alias", *KINDS):
            raise ConfigError(f"decisions.tsv:{number}: write name, bar, alias or a kind, target, reason")
        found[normalize_name(cells[0])] = Decision(normalize_name(cells[0]), cells[1], cells[2], cells[3])
    return found


def category_candidates(evidence: Evidence) -> list[Candidate]:
    """The names in lists of everyday things and places, the most listed and most said first."""
    listed: dict[str, list[CategoryList]] = {}
    for source, names in evidence.lists.items():
        for name in names if source.common else ():
            listed.setdefault(name, []).append(source)
    found = []
    for name, sources in listed.items():
        scene = all(source.kind == "scene" for source in sources)
        kind: Kind = "scene" if scene else "object"
        mark = len(sources) + math.log10(1 + evidence.counts.of(name))
        found.append(Candidate(name, kind, wordnet.sense_of(name, kind), "category", mark))
    return _ranked(found)


def noun_candidates(evidence: Evidence, attributes: frozenset[str]) -> list[Candidate]:
    """The nouns of WordNet that name what pictures show, the likeliest first.

    `attributes` are the attributes that are tags: `black cat` is no tag, for it is `black` and `cat`.
    """
    found = []
    for name in dict.fromkeys(wordnet.lemmas("n")):
        sense = next(iter(wordnet.senses(name, "n")), None) if _NAME.fullmatch(name) else None
        if sense is None or name.partition(" ")[0] in attributes:
            continue
        sort, said = wordnet.class_of(sense), evidence.counts.noun[name]
        if said < _LEAST_SAID.get(sort, math.inf) or not (said or name in evidence.lemmas):
            continue
        if not _names_a_thing(name, sense, sort, evidence):
            continue
        kind = _KIND_OF_CLASS.get(sort, "scene" if wordnet.is_place(sense) else "object")
        found.append(Candidate(name, kind, sense, "noun", _mark(name, sort, said, evidence)))
    return _ranked(found)


def _names_a_thing(name: str, sense: Any, sort: str, evidence: Evidence) -> bool:
    """Not a proper name, not a word that is mostly no noun, not one as general as `structure`."""
    counts = evidence.counts
    if wordnet.is_proper(name) or not wordnet.mostly(name, "n"):
        return False
    if counts.noun[name] < counts.verb[name] + counts.adjective[name]:
        return False
    if sort == "act":
        return wordnet.is_sport(sense)
    return sort not in wordnet.CONCRETE or wordnet.depth(sense) >= _LEAST_DEPTH


def verb_candidates(evidence: Evidence) -> list[Candidate]:
    """The verbs of captions whose first sense is something that one sees being done."""
    found = []
    for name, said in evidence.counts.verb.items():
        sense = next(iter(wordnet.senses(name, "v")), None) if _NAME.fullmatch(name) else None
        if sense is None or said < max(_VERB_LEAST_SAID, evidence.counts.noun[name]):
            continue
        if wordnet.class_of(sense) in _VISIBLE_VERBS and wordnet.mostly(name, "v"):
            found.append(Candidate(name, "action", sense, "verb", float(said)))
    return _ranked(found)


def _mark(name: str, sort: str, said: int, evidence: Evidence) -> float:
    """Common words rank first, then what captions say, what has pictures in ImageNet, what lists name.

    Phrases rank lower: WordNet's are mostly species and technical terms.
    """
    listed = sum(name in names for names in evidence.lists.values())
    return (
        min(evidence.frequency(name), 5.0)
        + 1.7 * math.log10(1 + said)
        + _MARKS.get(sort, _CONCRETE_MARK)
        + (0.7 if name in evidence.lemmas else 0.0)
        + 0.5 * min(listed, 2)
        - (1.7 if " " in name else 0.0)
    )


def _ranked(candidates: list[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda one: (-one.mark, one.name))
