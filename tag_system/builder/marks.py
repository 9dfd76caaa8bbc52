"""How likely a name is one that captions of pictures use: the mark by which the rules rank.

Every part is one kind of evidence. The weights are round numbers set by hand.
"""

import math
from typing import Any

from tagmill.tag_system.builder import wordnet
from tagmill.tag_system.builder.evidence import NameEvidence

# Of what nobody rated. Raters were given common words: what they were not given is rarer than its class.
_CONCRETENESS = 3.0
_VISUAL = 2.5
_CONCRETE = 3.7

# By WordNet's class of the sense, where it says more than the ratings do.
_CLASSES = {"plant": 1.2, "animal": 0.7, "object": 1.0, "food": 0.7, "artifact": 0.4, "group": 0.3}
_CLASSES |= {"substance": 0.3, "phenomenon": 0.3, "person": -0.4, "attribute": -0.5, "relation": -1.5}
_CLASSES |= {"cognition": -0.5, "process": -1.0, "feeling": -0.5, "quantity": -0.7, "state": -0.3}

# Captions by strangers of everyday photographs say little of them, those of the web much.
_HOLIDAY = 1.5

_PHRASE = -2.0


def mark(name: str, sense: Any | None, evidence: NameEvidence) -> float:
    """The mark of a name in a sense: 0 is about where one name in four is worth a tag."""
    words = name.split(" ")
    own = _word(name, sense, evidence) if len(words) == 1 else _phrase(name, words, evidence)
    listed = sum(name in names for names in evidence.lists.values())
    counts = evidence.counts
    return (
        own
        + 0.8 * math.log10(1 + counts.noun[name])
        + 1.2 * math.log10(1 + counts.verb[name])
        + (_of_class(sense) if sense is not None else 0.0)
        + (0.7 if name in evidence.lemmas else 0.0)
        + 0.8 * min(listed, 3)
    )


def _of_class(sense: Any) -> float:
    return _HOLIDAY if wordnet.is_holiday(sense) else _CLASSES.get(wordnet.class_of(sense), 0.0)


def _word(name: str, sense: Any | None, evidence: NameEvidence) -> float:
    """Common, concrete, visible words, and those that web captions use; plurals rank below their singular."""
    norms = evidence.norms
    concrete = sense is not None and wordnet.class_of(sense) in wordnet.CONCRETE
    return (
        0.7 * min(evidence.frequency(name), 5.5)
        - 0.2 * norms.rarity(name)
        + 0.9 * norms.concreteness.get(name, _CONCRETE if concrete else _CONCRETENESS)
        + 0.4 * norms.visual.get(name, _VISUAL)
        - 7.0
    )


def _phrase(name: str, words: list[str], evidence: NameEvidence) -> float:
    """Concrete phrases of concrete words that the web writes; not those of two very common words."""
    norms = evidence.norms
    first, last = (norms.concreteness.get(word, _CONCRETENESS) for word in (words[0], words[-1]))
    return (
        0.5 * norms.concreteness.get(name, _CONCRETENESS)
        + 0.8 * first
        + 0.6 * last
        - 0.35 * evidence.frequency(words[0])
        - 0.2 * evidence.frequency(words[-1])
        + 0.6 * math.log10(1 + norms.bigrams.get(name, 0) / 10_000)
        + 0.4 * math.log10(1 + evidence.counts.noun[words[-1]])
        + (1.0 if name in norms.visual else 0.0)
        - (1.0 if wordnet.senses(name, "n") else 0.0)
        + _PHRASE * (len(words) - 1)
        - 6.7
    )
