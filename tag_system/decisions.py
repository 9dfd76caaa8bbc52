"""The verdict on a tag of an image, from the evidence that the stages gathered.

`decide` is pure and cheap: the clean stage writes its verdicts, and a trainer may decide the same evidence
again under another policy. The rule `paper` follows Recognize Anything (arXiv 2306.03514, section 3.3): per
tag, the regions farthest from their cluster centres are outliers and their tags go, as do tags that the
tagger does not see on their own region. The rule `adaptive` is ours: it weighs scores and has no fixed rate.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args

import numpy as np
from pydantic import Field, JsonValue, field_validator, model_validator

from tagmill.tag_system.core import plugins
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError

Verdict = Literal["kept", "dropped", "uncertain"]

Rule = Literal[
    "given",
    "not_proposed",
    "not_localized",
    "agreed",
    "no_box",
    "weak_box",
    "other_tag",
    "outlier",
    "contradiction",
    "regions_agree",
    "doubtful",
]
"""Why. `given`: a trusted label. `not_proposed`: under every source's threshold. `not_localized`: no region
was looked for. `agreed`: several captions name it. `no_box`: no region was found. `weak_box`: the best
box scores low. `other_tag`: the region looks more like another tag. `outlier`: it lies far from the tag's
other regions. `contradiction`: the tagger does not see the tag on its region. `regions_agree`: nothing
speaks against it. `doubtful`: the evidence is thin."""

Basis = Literal[
    "given", "reviewed", "verified", "region", "captions", "caption", "generated", "tagger", "implied"
]
"""What a verdict rests on, whichever it is; of `not_proposed`, what evidence there was.

`given`: a trusted label. `region`: a box was found and the rule looked at it, whatever it found there. Where
no region decided (none was looked for or found, or captions agreed) it is who names the tag. `captions`: two
captions or more, one of them the source's. `caption`: one caption of the source alone, or a label that is not
trusted, which is worth no more. `generated`: generated captions alone. `tagger`: at most the tagger's score.
Rules never give the others: `reviewed` is a person's answer, `verified` a verifier's on the image, `implied`
a tag that follows from a kept one.
"""

_ON_REGIONS = frozenset({"weak_box", "other_tag", "outlier", "contradiction", "regions_agree", "doubtful"})
"""The rules that look at a box."""

_BEFORE_RULES = ("given", "not_proposed", "not_localized")
"""Reasons of verdicts that are given without asking a `CleaningRule`."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

REASONS: tuple[Rule, ...] = tuple(rule for rule in get_args(Rule) if rule not in _BEFORE_RULES)
"""The reasons that a `CleaningRule` can give."""


@dataclass(frozen=True)
class Evidence:
    """What is known of one tag on one image. None means that it was not measured, which counts as neutral.

    Attributes:
        given: Labels of the source that name the tag.
        parsed: Captions of the source that name it.
        generated: Generated captions that name it.
        tagger: The tagger's score on the whole image, 0..1.
        asked: Whether the localizer looked for it.
        boxes: How many boxes it found.
        box_score: Score of the best box, 0..1; what follows is of that box too.
        own_score: Cosine similarity of the region's embedding to the tag.
        other_score: The same to the best other candidate of the image.
        region_score: The tagger's score on the region, 0..1.
        distance: Distance of the region to the tag's nearest cluster centre.
        distance_rank: Share of the tag's sampled regions that are nearer, 0 (none) to 1 (all); the farthest
        of
            n sampled regions has 1 - 1/n.
    """

    given: int = 0
    parsed: int = 0
    generated: int = 0
    tagger: float | None = None
    asked: bool = False
    boxes: int = 0
    box_score: float | None = None
    own_score: float | None = None
    other_score: float | None = None
    region_score: float | None = None
    distance: float | None = None
    distance_rank: float | None = None

    @property
    def is_named(self) -> bool:
        """Whether a label or a caption names the tag."""
        return bool(self.given or self.parsed or self.generated)


class CleaningRule(Protocol):
    """Decides on tags that were proposed and that the localizer looked for."""

    def decide(self, evidence: Evidence) -> tuple[Verdict, Rule]:
        """Give a verdict, and its reason, which is one of `REASONS`."""


class OwnRule(CleaningRule, Protocol):
    """A rule that a config names as `package.module:Class`; it needs no base class.

    It is constructed from the policy's `options`, cheaply, in the driver and in every worker; the constructor
    raises ValueError for a bad one. `decide` gives equal verdicts on equal evidence. A rule may have `grid`,
    which says by option what values `tagmill tune` tries.
    """

    version: int
    """A number to raise whenever the same evidence and options give another verdict: `clean` runs again."""


class PaperRule(Config):
    """The rule `paper` with its constants: the share of a tag's regions that counts as outliers, and the
    tagger's score on a region under which the tag is contradicted.
    """

    outlier_fraction: float = Field(0.10, ge=0, le=1)
    region_threshold: float = Field(0.1, ge=0, le=1)

    def decide(self, evidence: Evidence) -> tuple[Verdict, Rule]:
        """Drop outliers and contradicted tags; one without a box stays, for the paper tests regions only."""
        if not evidence.boxes:
            return "kept", "no_box"
        if _lies_beyond(evidence, 1 - self.outlier_fraction):
            return "dropped", "outlier"
        if evidence.region_score is not None and evidence.region_score < self.region_threshold:
            return "dropped", "contradiction"
        return "kept", "regions_agree"


class AdaptiveRule(Config):
    """The rule `adaptive` with its constants.

    A tag that `agreeing` captions name is kept unless its region looks like another tag: on 300 photographs
    with five captions each, such tags were right in 331 of 339 cases. Else a best box under `weak_box`
    drops the tag; at `strong_box` only the embedding can speak against it. `margin` is how far another
    candidate may lie above the tag itself in similarity to the region; `outlier_rank` the rank of
    distance from which a box that is not strong counts as an outlier.
    """

    agreeing: int = Field(2, ge=1)
    weak_box: float = Field(0.15, ge=0, le=1)
    strong_box: float = Field(0.45, ge=0, le=1)
    margin: float = Field(0.02, ge=0)
    outlier_rank: float = Field(0.95, ge=0, le=1)

    def decide(self, evidence: Evidence) -> tuple[Verdict, Rule]:
        """Weigh the region's look first, then agreement of captions, the best box's score, its distance."""
        own, other = evidence.own_score, evidence.other_score
        if own is not None and other is not None and other - own > self.margin:
            return "dropped", "other_tag"
        if evidence.parsed + evidence.generated >= self.agreeing:
            return "kept", "agreed"
        if not evidence.boxes or evidence.box_score is None:
            return "uncertain" if evidence.is_named else "dropped", "no_box"
        if evidence.box_score < self.weak_box:
            return "dropped", "weak_box"
        if evidence.box_score >= self.strong_box:
            return "kept", "regions_agree"
        if _lies_beyond(evidence, self.outlier_rank):
            return "dropped", "outlier"
        return "kept" if evidence.is_named else "uncertain", "doubtful"


BUILT_IN = {
    "adaptive": f"{__name__}:AdaptiveRule",
    "paper": f"{__name__}:PaperRule",
}
"""Short names of the built-in rules; each has its constants in a section of `Policy` of its name."""


class Policy(Config):
    """How verdicts are made.

    `rule` is a short name of `BUILT_IN` or an `OwnRule` of yours as `package.module:Class`, made from
    `options`; it is imported when it is first needed. `tagger_threshold` is the score from which the tagger
    alone proposes a tag (0.68 for every tag in RAM's paper, 0.45 to 1 by tag in its released thresholds),
    `unchecked_threshold` (null: the same) that of a tag that no region was looked for, so that nothing
    checks it. `trust_given` keeps the source's own labels.
    """

    rule: str = "adaptive"
    options: dict[str, JsonValue] = {}
    tagger_threshold: float = Field(0.65, ge=0, le=1)
    unchecked_threshold: float | None = Field(None, ge=0, le=1)
    trust_given: bool = True
    paper: PaperRule = PaperRule()
    adaptive: AdaptiveRule = AdaptiveRule()

    @field_validator("rule")
    @classmethod
    def _check_rule(cls, rule: str) -> str:
        try:
            plugins.place_of("rule", rule, BUILT_IN)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return rule

    @model_validator(mode="after")
    def _check_options(self) -> "Policy":
        if self.options and self.rule in BUILT_IN:
            raise ValueError(
                f"options are for a rule of your own: write the constants of {self.rule} in the section "
                f"{self.rule}, and set options to {{}}"
            )
        return self

    def in_force(self) -> dict[str, Any]:
        """Give what differs from the defaults and decides verdicts: no constants of other rules."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude=self.idle())

    def idle(self) -> set[str]:
        """Name the keys that belong to rules that are not chosen."""
        return {"options", *BUILT_IN} - {self.rule if self.rule in BUILT_IN else "options"}

    def under(self, rule: str) -> "Policy":
        """Give the same policy under another rule, which takes no options over."""
        return self if rule == self.rule else self.model_copy(update={"rule": rule, "options": {}})


def rule_of(policy: Policy) -> CleaningRule:
    """Give the rule that a policy chooses. Raises ConfigError, see `own_rule`."""
    if policy.rule in BUILT_IN:
        rule: CleaningRule = getattr(policy, policy.rule)
        return rule
    return own_rule(policy)


def own_rule(policy: Policy) -> OwnRule:
    """Give the rule of a policy whose rule is not a built-in one.

    Raises ConfigError if there is no such class, it refuses the options, or it does not fit `OwnRule`.
    """
    factory = plugins.find("rule", policy.rule, {})
    return _constructed(factory, policy.rule, json.dumps(policy.options))


@lru_cache(maxsize=16)
def _constructed(factory: Any, name: str, options: str) -> OwnRule:
    rule: OwnRule = plugins.construct("rule", name, json.loads(options), factory)
    if not callable(getattr(rule, "decide", None)):
        raise ConfigError(f"rule {name!r} has no method decide: add `def decide(self, evidence)`")
    version = getattr(rule, "version", None)
    if not isinstance(version, int):
        raise ConfigError(f"rule {name!r}: version must be a number, got {version!r}; add `version = 1`")
    return rule


@dataclass(frozen=True)
class Decision:
    """A verdict, the rule that made it, and what it rests on."""

    verdict: Verdict
    rule: Rule
    basis: Basis


_Outcome = tuple[Verdict, Rule]


def decide(evidence: Evidence, policy: Policy) -> Decision:
    """Decide on one tag of one image.

    Args:
        evidence: What is known of the tag.
        policy: The rule, its constants, and the thresholds; `load_config(...).clean.policy` is one.

    Returns:
        The verdict, why, and what it rests on.

    Raises:
        ConfigError: A rule of somebody's own cannot be had, or gives no known verdict.

    Examples:
        >>> from tagmill.tag_system.decisions import Evidence, Policy
        >>> seen = Evidence(parsed=1, asked=True, boxes=1, box_score=0.8)
        >>> decide(seen, Policy())
        Decision(verdict='kept', rule='regions_agree', basis='region')
        >>> decide(Evidence(tagger=0.6), Policy(tagger_threshold=0.7)).verdict
        'dropped'
    """
    verdict, rule = _outcome(evidence, policy)
    return Decision(verdict, rule, _basis(evidence, rule))


def _basis(evidence: Evidence, rule: Rule) -> Basis:
    """Say what a verdict by `rule` rests on, as `Basis` defines it."""
    if rule == "given":
        return "given"
    if rule in _ON_REGIONS:
        return "region"
    if evidence.parsed and evidence.parsed + evidence.generated > 1:
        return "captions"
    if evidence.parsed or evidence.given:
        return "caption"
    return "generated" if evidence.generated else "tagger"


def _outcome(evidence: Evidence, policy: Policy) -> _Outcome:
    if evidence.given and policy.trust_given:
        return "kept", "given"
    if not evidence.is_named and (evidence.tagger is None or evidence.tagger < _threshold(evidence, policy)):
        return "dropped", "not_proposed"
    if not evidence.asked:
        return "kept", "not_localized"
    outcome = rule_of(policy).decide(evidence)
    return outcome if policy.rule in BUILT_IN else _checked(outcome, policy.rule)


def _checked(outcome: _Outcome, name: str) -> _Outcome:
    """Refuse what is not a verdict with a reason: everything after this counts on the known ones."""
    is_pair = isinstance(outcome, tuple) and len(outcome) == 2
    if not (is_pair and outcome[0] in VERDICTS and outcome[1] in REASONS):
        raise ConfigError(
            f"rule {name!r}: decide gave {outcome!r}; it must give a verdict ({', '.join(VERDICTS)}) and why "
            f"({', '.join(REASONS)})"
        )
    return outcome


def _threshold(evidence: Evidence, policy: Policy) -> float:
    if evidence.asked or policy.unchecked_threshold is None:
        return policy.tagger_threshold
    return policy.unchecked_threshold


def _lies_beyond(evidence: Evidence, rank: float) -> bool:
    """Tell whether a larger share than `rank` of the tag's regions lies nearer.

    Both are compared as float32, as ranks are stored: 8 of 10 is not beyond 1 - 0.2.
    """
    found = evidence.distance_rank
    return found is not None and bool(np.float32(found) > np.float32(rank))
