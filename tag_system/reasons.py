"""Verdicts in words: what vouches for a tag, and the number that decided, beside its constant."""

from collections.abc import Mapping
from typing import Any

from tagmill.tag_system.decisions import Basis, Policy

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


def vouched(kept_by: Mapping[str, int]) -> str:
    """Say what kept tags rest on, from how many rest on each `Basis`: number and share of each."""
    total = sum(kept_by.values())
    found = ((words, kept_by[basis]) for basis, words in VOUCHERS.items() if basis in kept_by)
    return ", ".join(f"{words} for {count:,} ({count / total:.0%})" for words, count in found)


def why(decision: Mapping[str, Any], policy: Policy) -> str:
    """Say why a tag was kept or dropped, by the number that decided and its constant, in a few words.

    `decision` is a row of clean, `policy` the one that it was made under.
    """
    rule = decision["rule"]
    if rule == "not_localized":
        return f"not looked for; {VOUCHERS[decision['basis']]}"
    if rule == "not_proposed":
        return _not_proposed(decision, policy)
    if rule == "no_box":
        return f"looked for in vain; {VOUCHERS[decision['basis']]}"
    if rule == "given":
        return VOUCHERS["given"]
    words = {"adaptive": _adaptive, "paper": _paper}.get(policy.rule)
    return (words(decision, policy) if words else "") or str(rule).replace("_", " ")


def _not_proposed(decision: Mapping[str, Any], policy: Policy) -> str:
    score, unchecked = decision["tagger"], policy.unchecked_threshold
    limit = policy.tagger_threshold if decision["asked"] or unchecked is None else unchecked
    if score is None:
        return "nobody names it, and the tagger does not know it"
    return f"tagger {score:.2f} < {limit:g}"


def _adaptive(decision: Mapping[str, Any], policy: Policy) -> str:
    rule, constants, box = decision["rule"], policy.adaptive, decision["box_score"]
    if rule == "other_tag":
        own, other = decision["own_score"], decision["other_score"]
        return f"{decision['other_tag']} {other:.2f} > own {own:.2f} + {constants.margin:g}"
    if rule == "agreed":
        return f"{decision['parsed'] + decision['generated']} captions >= {constants.agreeing}"
    if rule == "weak_box":
        return f"box {box:.2f} < {constants.weak_box:g}"
    if rule == "regions_agree":
        return f"box {box:.2f} >= {constants.strong_box:g}"
    if rule == "outlier":
        return f"rank {decision['distance_rank']:.2f} > {constants.outlier_rank:g}"
    if rule == "doubtful":
        return f"{constants.weak_box:g} <= box {box:.2f} < {constants.strong_box:g}"
    return ""


def _paper(decision: Mapping[str, Any], policy: Policy) -> str:
    rule, constants = decision["rule"], policy.paper
    if rule == "outlier":
        return f"rank {decision['distance_rank']:.2f} > {1 - constants.outlier_fraction:g}"
    if rule == "contradiction":
        return f"tagger on its box {decision['region_score']:.2f} < {constants.region_threshold:g}"
    return ""
