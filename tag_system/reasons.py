"""Verdicts in words: what vouches for a tag, and the number that decided, beside its constant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, gt, lt
from typing import Any

from tagmill.tag_system.decisions import AdaptiveRule, Basis, Policy

VOUCHERS: dict[Basis, str] = {
    "given": "a given label",
    "reviewed": "a person's answer",
    "verified": "a verifier",
    "region": "a look at a box",
    "captions": "several captions",
    "caption": "one caption alone",
    "generated": "a generated caption alone",
    "tagger": "the tagger's score alone",
    "implied": "a kept tag that it follows from",
}
"""What a verdict rests on, in words."""

THIN = frozenset({"caption", "generated", "tagger"})
"""What a kept tag rests on that nothing else confirms."""

NO_CLASS = "n/a"
"""What stands for the score of a tagger that has no class for a tag, which is no low score."""


def vouched(kept_by: Mapping[str, int]) -> str:
    """Say what kept tags rest on, from how many rest on each `Basis`: number and share of each."""
    total = sum(kept_by.values())
    found = ((words, kept_by[basis]) for basis, words in VOUCHERS.items() if basis in kept_by)
    return ", ".join(f"{words} for {count:,} ({count / total:.0%})" for words, count in found)


_SIGNS: dict[str, Callable[[float, float], bool]] = {"<": lt, ">=": ge, ">": gt}

MOST_DIGITS = 7
"""As many as a float32 has."""


def _rounded(holds: Callable[..., bool], *numbers: float) -> list[str]:
    """Write numbers with the fewest digits, from two on, with which what was decided holds of them still."""
    for digits in range(2, MOST_DIGITS + 1):
        written = [f"{number:.{digits}f}" for number in numbers]
        if holds(*map(float, written)):
            break
    return written


@dataclass(frozen=True)
class Measured:
    """A score that decided, and the constant that it was held against: `what` `number` `sign` `constant`."""

    what: str
    number: float
    sign: str
    constant: float

    @property
    def distance(self) -> float:
        """How far the score lies from its constant."""
        return abs(self.number - self.constant)

    def said(self) -> str:
        """Say it in a few words, the score with as many digits as show on which side it lies."""
        decides = _SIGNS[self.sign]
        (number,) = _rounded(lambda number: decides(number, self.constant), self.number)
        return f"{self.what} {number} {self.sign} {self.constant:g}"


def measured(decision: Mapping[str, Any], policy: Policy) -> Measured | None:
    """Give the score that decided on a tag, with its constant; None where none did, such as a count.

    `decision` is a row of clean, `policy` the one that it was made under. Of a doubtful box the constant is
    the nearer of the two that it lies between.
    """
    rule = decision["rule"]
    if rule in ("not_proposed", "not_localized"):
        return _proposal(decision, policy)
    found = {"adaptive": _adaptive, "paper": _paper}.get(policy.rule)
    return found(decision, policy) if found else None


def why(decision: Mapping[str, Any], policy: Policy) -> str:
    """Say why a tag was kept or dropped, by the number that decided and its constant, in a few words.

    `decision` is a row of clean, `policy` the one that it was made under.
    """
    rule = decision["rule"]
    if rule == "not_localized":
        return f"not looked for; {VOUCHERS[decision['basis']]}"
    if rule == "no_box":
        return f"looked for in vain; {VOUCHERS[decision['basis']]}"
    if rule == "given":
        return VOUCHERS["given"]
    if policy.rule == "adaptive" and rule in _IN_WORDS:
        return _IN_WORDS[rule](decision, policy.adaptive)
    found = measured(decision, policy)
    if found is None and rule == "not_proposed":
        return "nobody names it, and the tagger does not know it"
    return found.said() if found else str(rule).replace("_", " ")


def _proposal(decision: Mapping[str, Any], policy: Policy) -> Measured | None:
    """Give the tagger's score where it alone proposed a tag, or failed to."""
    score, unchecked = decision["tagger"], policy.unchecked_threshold
    limit = policy.tagger_threshold if decision["asked"] or unchecked is None else unchecked
    if score is None or (decision["rule"] == "not_localized" and decision["basis"] != "tagger"):
        return None
    return Measured("tagger", score, "<" if decision["rule"] == "not_proposed" else ">=", limit)


def _adaptive(decision: Mapping[str, Any], policy: Policy) -> Measured | None:
    rule, constants, box = decision["rule"], policy.adaptive, decision["box_score"]
    if rule == "other_tag":
        lead = decision["other_score"] - decision["own_score"]
        return Measured(f"lead of {decision['other_tag']}", lead, ">", constants.margin)
    if rule == "weak_box":
        return Measured("box", box, "<", constants.weak_box)
    if rule == "regions_agree":
        return Measured("box", box, ">=", constants.strong_box)
    if rule == "outlier":
        return Measured("rank", decision["distance_rank"], ">", constants.outlier_rank)
    if rule == "doubtful":
        weak, strong = (
            Measured("box", box, ">=", constants.weak_box),
            Measured("box", box, "<", constants.strong_box),
        )
        return min(weak, strong, key=lambda one: one.distance)
    return None


def _paper(decision: Mapping[str, Any], policy: Policy) -> Measured | None:
    rule, constants = decision["rule"], policy.paper
    if rule == "outlier":
        return Measured("rank", decision["distance_rank"], ">", 1 - constants.outlier_fraction)
    if rule == "contradiction":
        return Measured("tagger on its box", decision["region_score"], "<", constants.region_threshold)
    return None


def _other_tag(decision: Mapping[str, Any], constants: AdaptiveRule) -> str:
    own, other = _rounded(
        lambda own, other: other - own > constants.margin, decision["own_score"], decision["other_score"]
    )
    return f"{decision['other_tag']} {other} > own {own} + {constants.margin:g}"


def _agreed(decision: Mapping[str, Any], constants: AdaptiveRule) -> str:
    return f"{decision['parsed'] + decision['generated']} captions >= {constants.agreeing}"


def _doubtful(decision: Mapping[str, Any], constants: AdaptiveRule) -> str:
    weak, strong = constants.weak_box, constants.strong_box
    (box,) = _rounded(lambda box: weak <= box < strong, decision["box_score"])
    return f"{weak:g} <= box {box} < {strong:g}"


_IN_WORDS = {"other_tag": _other_tag, "agreed": _agreed, "doubtful": _doubtful}
"""Reasons of the rule `adaptive` that are not said as one score against one constant."""
