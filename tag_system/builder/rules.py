"""Which names become tags: the rules. What passes them is ranked by its mark (marks.py).

Every rule reads open evidence alone (captions, category lists, WordNet, norms, word frequencies). What is
decided by hand stands in `decisions.tsv`, each line with its reason.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from tagmill.tag_system.builder import wordnet
from tagmill.tag_system.builder.evidence import NameEvidence
from tagmill.tag_system.builder.lists import CategoryList
from tagmill.tag_system.builder.marks import mark
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import lines
from tagmill.tag_system.kinds import KINDS, Kind
from tagmill.tag_system.vocabulary import normalize_name

# How concrete people must find a noun, by WordNet's class of its sense. Most of what belongs to classes that
# stand nowhere here (state, cognition, time ...) shows in no picture.
_LEAST_CONCRETE = dict.fromkeys(wordnet.CONCRETE, 3.0) | {"person": 4.0, "Tops": 4.0}
_ABSTRACT = ((10, 3.0), (3, 3.4), (0, 3.6))
"""How concrete, by how often captions say it."""
_CONCRETE = 4.1
_SURELY_CONCRETE = 4.4

_KIND_OF_CLASS: dict[str, Kind] = {"act": "action", "event": "scene", "location": "scene", "time": "scene"}

_LEAST_DEPTH = 5

_VISIBLE_VERBS = {"motion", "contact", "competition", "consumption", "body", "creation"}
_VISIBLE_VERB_CONCRETE = 2.7
_VERB_CONCRETE = 3.4
_VERB_LEAST_SAID = 3
_ADJECTIVE_CONCRETE = 3.5
_ADJECTIVE_LEAST_SAID = 5
_PHRASE_LEAST_SAID = 3
_NAME = re.compile(r"[a-z]{3,}(?: [a-z]+)*")


@dataclass(frozen=True)
class Candidate:
    """A name that passed a rule; `mark` ranks it among those of the same rule."""

    name: str
    kind: Kind
    sense: Any | None
    rule: str
    mark: float


@dataclass(frozen=True)
class NameDecision:
    """A decision by hand on a name: it is `barred`, or is a tag of a kind, or an alias of `target`."""

    name: str
    verdict: str
    target: str
    reason: str


def read_decisions() -> dict[str, NameDecision]:
    """The exceptions that are made by hand; ConfigError for a line without a reason."""
    text = files("tagmill.tag_system.builder").joinpath("decisions.tsv").read_text(encoding="utf-8")
    found = {}
    for number, line in enumerate(lines(text), start=1):
        if not line or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 4 or not cells[3] or cells[1] not in ("bar", "alias", *KINDS):
            raise ConfigError(f"decisions.tsv:{number}: write name, bar, alias or a kind, target, reason")
        found[normalize_name(cells[0])] = NameDecision(normalize_name(cells[0]), cells[1], cells[2], cells[3])
    return found


def category_candidates(evidence: NameEvidence) -> list[Candidate]:
    """The names in lists of everyday things and places, the most listed and most said first."""
    listed: dict[str, list[CategoryList]] = {}
    for source, names in evidence.lists.items():
        for name in names if source.common else ():
            # `luggage and bags` is a label for two things, `bow and arrow` one that WordNet knows.
            if " and " in name and not wordnet.senses(name, "n"):
                continue
            listed.setdefault(name, []).append(source)
    found = []
    for name, sources in listed.items():
        scene = all(source.kind == "scene" for source in sources)
        kind: Kind = "scene" if scene else "object"
        mark = len(sources) + math.log10(1 + evidence.counts.of(name))
        found.append(Candidate(name, kind, wordnet.sense_of(name, kind), "category", mark))
    return _ranked(found)


def candidates(evidence: NameEvidence, attributes: frozenset[str]) -> list[Candidate]:
    """All that one sees in pictures and says of them: nouns, phrases, verbs, adjectives, the likeliest first.

    `attributes` are the attributes that are tags: `black cat` is not a tag, for it is `black` and `cat`.
    """
    found = [*_nouns(evidence, attributes), *_phrases(evidence, attributes), *_verbs(evidence)]
    return _ranked([*found, *_adjectives(evidence)])


def _nouns(evidence: NameEvidence, attributes: frozenset[str]) -> Iterator[Candidate]:
    """The nouns of WordNet that people find concrete."""
    for name in wordnet.lemmas("n"):
        rated = evidence.norms.concreteness.get(name)
        known = rated is not None or evidence.counts.noun[name] or name in evidence.lemmas
        if not known or not _NAME.fullmatch(name) or not _is_noun(name, evidence):
            continue
        sure = rated is not None and rated >= _SURELY_CONCRETE
        sense = wordnet.noun_sense(name, concrete=sure)
        if sense is None or (name.partition(" ")[0] in attributes and not sure):
            continue
        if not _is_concrete(sense, rated, evidence.counts.noun[name]):
            continue
        if rated is None and " " not in name and wordnet.is_capitalised(name, sense):
            continue
        kind = _KIND_OF_CLASS.get(wordnet.class_of(sense), "object")
        if wordnet.is_place(sense):
            kind = "scene"
        yield Candidate(name, kind, sense, "noun", mark(name, sense, evidence))


def _is_noun(name: str, evidence: NameEvidence) -> bool:
    """Not a proper name, not a word that captions or texts use mostly as a verb or an adjective."""
    counts = evidence.counts
    rated = evidence.norms.concreteness.get(name, 0.0)
    if wordnet.is_proper(name) and (rated < _CONCRETE or wordnet.is_proper_first(name)):
        return False
    if rated >= _SURELY_CONCRETE:
        return 2 * counts.noun[name] >= counts.verb[name] + counts.adjective[name]
    return wordnet.mostly(name, "n") and counts.noun[name] >= counts.verb[name] + counts.adjective[name]


def _is_concrete(sense: Any, rated: float | None, said: int) -> bool:
    """Whether pictures show what the sense means: by its rating, which what is abstract must have."""
    sort = wordnet.class_of(sense)
    if sort in wordnet.CONCRETE and wordnet.depth(sense) < _LEAST_DEPTH:
        return rated is not None and rated >= _CONCRETE
    if wordnet.is_place(sense) or wordnet.is_holiday(sense):
        return True
    abstract = next(least for often, least in _ABSTRACT if said >= often)
    least = _LEAST_CONCRETE.get(sort, abstract)
    return rated >= least if rated is not None else sort in wordnet.CONCRETE or sort == "person"


def _phrases(evidence: NameEvidence, attributes: frozenset[str]) -> Iterator[Candidate]:
    """Phrases that WordNet lacks, of a noun and what modifies it: `shipping container`, not `add water`.

    People rate them as concrete, or captions or the web say them and both words are concrete nouns.
    """
    norms, counts = evidence.norms, evidence.counts
    said = (name for name, count in counts.noun.items() if count >= _PHRASE_LEAST_SAID)
    for name in dict.fromkeys([*norms.concreteness, *said, *norms.bigrams]):
        first, _, rest = name.partition(" ")
        head = rest.rpartition(" ")[2]
        if not rest or not _NAME.fullmatch(name) or first in attributes:
            continue
        rated = norms.concreteness.get(name)
        if rated is None:
            if min(norms.concreteness.get(word, 0.0) for word in (first, head)) < _SURELY_CONCRETE:
                continue
        elif rated < _CONCRETE or not (name in norms.bigrams or counts.noun[name] > 1):
            continue
        if wordnet.senses(name, "n") or not wordnet.mostly(head, "n") or not _modifies(first):
            continue
        sense = wordnet.sense_of(head, "object")
        if sense is None or (head.endswith("s") and wordnet.is_plural(head)):
            continue
        kind: Kind = "scene" if wordnet.is_place(sense) else "object"
        yield Candidate(name, kind, None, "phrase", mark(name, sense, evidence))


def _modifies(word: str) -> bool:
    """Whether the word stands before nouns: a noun or an adjective, or the form of a verb in -ing or -ed."""
    return wordnet.mostly(word, "n") or wordnet.mostly(word, "a") or word.endswith(("ing", "ed"))


def _verbs(evidence: NameEvidence) -> Iterator[Candidate]:
    """The verbs that captions say more often than the same noun, in a sense that one sees done."""
    for name, said in evidence.counts.verb.items():
        sense = next(iter(wordnet.senses(name, "v")), None) if _NAME.fullmatch(name) else None
        if sense is None or said < max(_VERB_LEAST_SAID, evidence.counts.noun[name]):
            continue
        rated = evidence.norms.concreteness.get(name, 0.0)
        least = _VISIBLE_VERB_CONCRETE if wordnet.class_of(sense) in _VISIBLE_VERBS else _VERB_CONCRETE
        if rated >= least and wordnet.mostly(name, "v"):
            yield Candidate(name, "action", sense, "verb", mark(name, sense, evidence))


def _adjectives(evidence: NameEvidence) -> Iterator[Candidate]:
    """The adjectives that captions say and people find concrete."""
    for name, said in evidence.counts.adjective.items():
        sense = next(iter(wordnet.senses(name, "a")), None) if _NAME.fullmatch(name) else None
        if sense is None or said < max(_ADJECTIVE_LEAST_SAID, evidence.counts.noun[name]):
            continue
        concrete = evidence.norms.concreteness.get(name, 0.0) >= _ADJECTIVE_CONCRETE
        if concrete and (wordnet.mostly(name, "a") or wordnet.mostly(name, "s")):
            yield Candidate(name, "attribute", sense, "adjective", mark(name, sense, evidence))


def _ranked(candidates: list[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda one: (-one.mark, one.name))
