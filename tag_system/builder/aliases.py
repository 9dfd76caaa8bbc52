"""Other names of a tag: WordNet's synonyms, the forms in -ing of an action, compounds written apart."""

import math
from collections.abc import Iterator
from typing import Any

from tagmill.tag_system.builder import wordnet
from tagmill.tag_system.builder.evidence import NameEvidence
from tagmill.tag_system.vocabulary import Tag, normalize_name

_CONCRETE = 3.5
_LEAST_FREQUENCY = 2.5
"""A word that no caption says must be so common in English, on Zipf's scale."""


def other_names(
    tag: Tag, sense: Any | None, evidence: NameEvidence, attributes: frozenset[str]
) -> Iterator[tuple[str, float]]:
    """Names that mean a tag in a sense and that people write, with how familiar each is.

    `attributes` are the names of attributes: `red hot` of hot dog would take the colour and leave the dog.
    """
    name = normalize_name(tag.name)
    if tag.kind == "action":
        yield from ((form, evidence.frequency(form)) for form in _gerunds(name, evidence))
        found = []
    else:
        # WordNet's synonyms of adjectives are looser than those of nouns: `soggy` of muddy.
        main = sense is not None and tag.kind != "attribute" and wordnet.is_main(name, sense)
        found = list(_synonyms(sense)) if main else []
        yield from ((other, 1.0 + _on_web(other, evidence)) for other in _apart(name, evidence))
    for other in found:
        familiar = familiarity(other, evidence)
        if familiar > 0 and other.partition(" ")[0] not in attributes:
            yield other, familiar


def _synonyms(sense: Any) -> Iterator[str]:
    """WordNet's synonyms; those of verbs are not aliases: `found` of launch, `go forth` of leave."""
    return (name for name in wordnet.synonyms(sense) if wordnet.mostly(name, sense.pos()))


def _gerunds(verb: str, evidence: NameEvidence) -> Iterator[str]:
    """The form in -ing of a verb: `hopping` of hop, not `hoping`."""
    for form in dict.fromkeys(f"{stem}ing" for stem in (verb, verb.removesuffix("e"), verb + verb[-1])):
        if wordnet.verb_of(form) == verb and evidence.frequency(form) >= _LEAST_FREQUENCY:
            yield form


def _apart(name: str, evidence: NameEvidence) -> Iterator[str]:
    """A word as two that the web also writes (`skate board`), two words as one (`smartphone`)."""
    first, _, rest = name.partition(" ")
    if rest:
        joined = f"{first}{rest}"
        if " " not in rest and evidence.frequency(joined) >= _LEAST_FREQUENCY:
            yield joined
        return
    for cut in range(3, len(name) - 2):
        apart = f"{name[:cut]} {name[cut:]}"
        parts = apart.split(" ")
        if apart in evidence.norms.bigrams and all(wordnet.senses(part, "n") for part in parts):
            yield apart


def familiarity(name: str, evidence: NameEvidence) -> float:
    """How often a name is written, on about Zipf's scale; 0 for what neither captions nor people who rate
    words know as a thing, and for phrases that the web does not write.
    """
    said = math.log10(1 + evidence.counts.of(name))
    rated = evidence.norms.concreteness.get(name, 0.0)
    if " " not in name:
        common = evidence.frequency(name)
        return common + said if said or (common >= _LEAST_FREQUENCY and rated >= _CONCRETE) else 0.0
    web = _on_web(name, evidence)
    return 1.0 + said + web if said or (web and rated >= _CONCRETE) else 0.0


def _on_web(name: str, evidence: NameEvidence) -> float:
    return math.log10(1 + evidence.norms.bigrams.get(name, 0) / 10_000)
