"""The built-in vocabulary: a first list by hand, then what the rules find, to an exact number of names."""

import dataclasses
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from tagmill.tag_system.builder import rules, wordnet
from tagmill.tag_system.builder.aliases import familiarity, other_names
from tagmill.tag_system.builder.evidence import NameEvidence
from tagmill.tag_system.builder.rules import Candidate, NameDecision
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import Kind
from tagmill.tag_system.matching import verb_bases
from tagmill.tag_system.vocabulary import Origin, Tag, Vocabulary, normalize_name

NAMES = 6449
"""Names and aliases together, as many as RAM's tag system has (arXiv 2306.03514, section 3.1)."""

IDS = 4600
"""Tags, about as many as RAM's 4,585; more where the aliases that people write do not suffice."""

ALIASES = 6
"""Other names are added to a tag until it has so many aliases: what comes after is odd."""


def first_list() -> Vocabulary:
    """The tags, kinds and aliases that were chosen by hand before there were rules."""
    text = files("tagmill.tag_system.builder").joinpath("first.tsv").read_text(encoding="utf-8")
    return Vocabulary.from_text(text, "first.tsv")


def build(
    evidence: NameEvidence, extended: Vocabulary | None = None, names: int = NAMES, ids: int = IDS
) -> Vocabulary:
    """A vocabulary of exactly `names` names in about `ids` tags.

    `extended` is a vocabulary whose tags keep their ids: new tags come after them. None starts from the
    first list, without what `decisions.tsv` bars. Raises ConfigError if the evidence has too few names, or
    `extended` too many.
    """
    decisions = rules.read_decisions()
    draft = _Draft(evidence, decisions)
    if extended is None:
        draft.start(first_list())
    else:
        draft.keep(extended)
    if draft.names > names:
        raise ConfigError(f"the vocabulary to extend has {draft.names} names already; raise --names")
    draft.decide()
    draft.add_all(rules.category_candidates(evidence), ids, names)
    ranked = rules.candidates(evidence, draft.attributes())
    draft.add_all(ranked, ids, names)
    draft.add_aliases(names)
    # Where aliases do not suffice, the next candidates fill up.
    draft.add_all(ranked, names, names)
    if draft.names != names:
        raise ConfigError(
            f"the sources have names for {draft.names} of {names}: give more captions or --list"
        )
    return draft.vocabulary()


class _Draft:
    """Tags in the making, with a table of the names taken and of the senses that have a tag."""

    def __init__(self, evidence: NameEvidence, decisions: Mapping[str, NameDecision]) -> None:
        self._evidence = evidence
        self._decisions = decisions
        self._tags: list[Tag] = []
        self._taken: dict[str, int] = {}
        self._by_sense: dict[tuple[Any, Kind], int] = {}
        self._senses: list[Any | None] = []
        self._fixed = 0

    @property
    def names(self) -> int:
        return len(self._taken)

    def attributes(self) -> frozenset[str]:
        """The names of the attributes that are tags by now."""
        return frozenset(normalize_name(tag.name) for tag in self._tags if tag.kind == "attribute")

    def start(self, first: Vocabulary) -> None:
        """Take the first list's tags but for what is barred or made an alias by hand."""
        for tag in first:
            decision = self._decisions.get(normalize_name(tag.name))
            if decision is not None and decision.verdict in ("bar", "alias"):
                continue
            kind: Kind = decision.verdict if decision else tag.kind  # type: ignore[assignment]  # read_decisions checked it
            aliases = [alias for alias in tag.aliases if normalize_name(alias) not in self._decisions]
            self._append(
                tag.name, kind, wordnet.sense_of(normalize_name(tag.name), kind), "first list", aliases
            )

    def keep(self, extended: Vocabulary) -> None:
        """Take every tag as it is, with its id."""
        for tag in extended:
            sense = wordnet.sense_of(normalize_name(tag.name), tag.kind)
            self._append(tag.name, tag.kind, sense, tag.origin.rule, list(tag.aliases))

    def decide(self) -> None:
        """Add the tags and aliases that are decided by hand."""
        for decision in self._decisions.values():
            if decision.verdict == "bar" or decision.name in self._taken:
                continue
            if decision.verdict == "alias":
                # A vocabulary of few tags may lack the target.
                target = self._taken.get(normalize_name(decision.target))
                if target is not None:
                    self._alias(target, decision.name)
            else:
                kind: Kind = decision.verdict  # type: ignore[assignment]  # read_decisions checked it
                self._append(decision.name, kind, wordnet.sense_of(decision.name, kind), "decision", [])
        self._fixed = len(self._tags)

    def add_all(self, candidates: Iterable[Candidate], ids: int, names: int) -> None:
        """Add candidates in their order: as an alias where a tag has their sense already, else as a tag."""
        for one in candidates:
            if self.names >= names or len(self._tags) >= ids:
                return
            if one.name in self._taken or self._barred(one.name):
                continue
            target = self._target(one)
            if target is None:
                self._append(one.name, one.kind, one.sense, one.rule, [])
            else:
                self._alias(target, one.name)
                self._lead(target, one.name)

    def add_aliases(self, names: int) -> None:
        """Add other names of the tags as aliases, the most familiar first."""
        attributes = self.attributes()
        found = [
            (-familiar, name, tag.id)
            for tag in self._tags
            for name, familiar in other_names(tag, self._senses[tag.id], self._evidence, attributes)
            if not self._barred(name)
        ]
        for _, name, place in sorted(found):
            if self.names >= names:
                return
            if name not in self._taken and len(self._tags[place].aliases) < ALIASES:
                self._alias(place, name)

    def _lead(self, place: int, alias: str) -> None:
        """Call a tag that a rule found by its alias if that is the more familiar word."""
        tag = self._tags[place]
        if place < self._fixed or " " in tag.name + alias:
            return
        if familiarity(alias, self._evidence) > familiarity(normalize_name(tag.name), self._evidence) + 0.3:
            aliases = tuple(tag.name if name == alias else name for name in tag.aliases)
            origin = dataclasses.replace(tag.origin, sources=self._evidence.sources(alias))
            self._tags[place] = dataclasses.replace(tag, name=alias, aliases=aliases, origin=origin)

    def _target(self, one: Candidate) -> int | None:
        """The tag that a candidate is another name of: `human arm` of arm, `jumping` of jump, a synonym."""
        for base in (one.name.removeprefix("human "), *verb_bases(one.name)):
            place = self._taken.get(base)
            if place is not None and (one.name.startswith("human ") or self._is_gerund(one.name, place)):
                return place
        return self._by_sense.get((one.sense, one.kind)) if one.sense is not None else None

    def _is_gerund(self, name: str, place: int) -> bool:
        tag = self._tags[place]
        return name.endswith("ing") and tag.kind == "action" and tag.name in verb_bases(name)

    def vocabulary(self) -> Vocabulary:
        """The finished vocabulary."""
        return Vocabulary(self._tags)

    def _barred(self, name: str) -> bool:
        decision = self._decisions.get(normalize_name(name))
        return decision is not None and decision.verdict == "bar"

    def _append(self, name: str, kind: Kind, sense: Any | None, rule: str, aliases: list[str]) -> None:
        place = len(self._tags)
        origin = Origin(
            synset=str(sense.name()) if sense is not None else "",
            hypernyms=wordnet.hypernyms(sense) if sense is not None else (),
            sources=self._evidence.sources(normalize_name(name)),
            rule=rule,
        )
        self._tags.append(Tag(place, name, kind, (), origin))
        self._senses.append(sense)
        self._taken[normalize_name(name)] = place
        if sense is not None:
            self._by_sense.setdefault((sense, kind), place)
        for alias in aliases:
            self._alias(place, alias)

    def _alias(self, place: int, name: str) -> None:
        tag = self._tags[place]
        self._tags[place] = dataclasses.replace(tag, aliases=(*tag.aliases, name))
        self._taken[normalize_name(name)] = place
