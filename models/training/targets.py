"""From the decisions on a sample's tags to what a model learns: targets, and a mask of what is known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.decisions import Evidence, Policy, decide, rule_of
from tagmill.tag_system.sample_tags import evidence_of
from tagmill.tag_system.shard_contract import Manifest, Sample, SampleTag, SampleVerdicts
from tagmill.tag_system.vocabulary import Vocabulary

Evidential = Literal["given", "parsed", "generated", "tagger"]

Implied = Literal["negative", "ignored", "positive"]
Absent = Literal["negative", "decided"]
"""How the marks of a dataset count, see `MarkPolicy`."""

Preset = Literal["stored", "parsed", "proposed", "paper", "adaptive"]
"""`stored`: the verdicts as the shards have them. `parsed`: tags of labels and captions alone. `proposed`:
these, and those of generated captions and the tagger, nothing cleaned. `paper`, `adaptive`: cleaned by that
rule. All but the first take their constants from the policy that the dataset was made with."""


@dataclass(frozen=True)
class NewerTag:
    """One decision that is newer than the sample, with its evidence."""

    tag: str
    verdict: str
    rule: str
    basis: str
    evidence: Evidence


class TagChoice(Config):
    """Which decisions become targets.

    `policy` decides the evidence again; `sources` are what may name a tag at all. Without `regions` nothing
    that was found in regions speaks for or against a tag: what is named is kept.
    """

    policy: Policy
    sources: tuple[Evidential, ...] = ("given", "parsed", "generated", "tagger")
    regions: bool = True

    def verdict(self, tag: SampleTag | NewerTag) -> str:
        """Decide on a tag again."""
        evidence = tag.evidence if isinstance(tag, NewerTag) else evidence_of(tag)
        return decide(replace(evidence, **self._hidden), self.effective).verdict

    @cached_property
    def effective(self) -> Policy:
        """What decides: the rule of the paper tests regions only, so it keeps all proposed without boxes."""
        return self.policy if self.regions else self.policy.under("paper")

    @cached_property
    def _hidden(self) -> dict[str, Any]:
        hidden: dict[str, Any] = {} if self.regions else {"boxes": 0}
        counted = ("given", "parsed", "generated")
        hidden |= {name: 0 for name in counted if name not in self.sources}
        return hidden if "tagger" in self.sources else hidden | {"tagger": None}


@dataclass(frozen=True)
class Marks:
    """What is marked on a sample beside its decisions; counts for tags that were not decided on.

    `positive` tags are shown, of `masked` ones nothing is known. `absent` tags are not there, and are
    negative though they are uncertain; of a kept tag that counts for nothing.
    """

    positive: Sequence[str] = ()
    masked: Sequence[str] = ()
    absent: Sequence[str] = ()


@dataclass(frozen=True)
class MarkPolicy:
    """How the marks of shards count.

    `implied` tags follow from kept ones: they are negatives, as all that was never thought of, left out, or
    positives. Where other decisions than the stored ones are taught, what they follow from may be dropped:
    then they are left out instead. `absent` tags are negatives, or whatever was decided.
    """

    implied: Implied = "negative"
    absent: Absent = "negative"

    def marks(self, sample: Sample | SampleVerdicts, *, stored: bool) -> Marks:
        """Give a sample's marks; `stored` says that its own verdicts are taught."""
        implied = () if self.implied == "negative" else sample.implied or ()
        absent = () if self.absent == "decided" else sample.absent or ()
        return (
            Marks(implied, (), absent)
            if self.implied == "positive" and stored
            else Marks((), implied, absent)
        )


class Decisions(Protocol):
    """Newer decisions than those in the shards; is copied into every worker process."""

    def check(self, dataset: str, vocabulary: str, keys: Sequence[str]) -> None:
        """Compare with a dataset, by its vocabulary's digest and some keys. Raises ConfigError."""

    def tags_of(self, sample: Sample) -> Sequence[NewerTag] | None:
        """Give all decisions on an example; None leaves it those of its shard."""


def choose(tags: Preset | TagChoice, manifest: Manifest) -> TagChoice | None:
    """Resolve a preset for a dataset; None stands for the stored verdicts.

    Raises ConfigError if the preset needs the dataset's own policy and the manifest does not tell it, or if
    the rule of a policy cannot be had.
    """
    if isinstance(tags, TagChoice):
        rule_of(tags.effective)
        return tags
    if tags == "stored":
        return None
    try:
        policy = Policy.model_validate(manifest.made_by["stages"]["clean"]["config"]["policy"])
    except (KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"tags: {tags} needs the policy that made the dataset, which its manifest does not give: write "
            "tags as policy, sources and regions"
        ) from error
    if tags == "parsed":
        return TagChoice(policy=policy, sources=("given", "parsed"), regions=False)
    if tags == "proposed":
        return TagChoice(policy=policy, regions=False)
    return TagChoice(policy=policy.under(tags))


@dataclass(frozen=True)
class Target:
    """What one sample teaches, arrays [classes]: 1 or 0, what of it is known, what its caption names.

    `unmapped` are the kept tags that no class stands for.
    """

    values: NDArray[np.float32]
    known: NDArray[np.float32]
    mentioned: NDArray[np.bool_]
    unmapped: tuple[str, ...]

    def positives(self, *, mentioned: bool) -> NDArray[np.bool_]:
        """Tell which known classes are positive, or with `mentioned` which of them a caption names."""
        return (self.mentioned if mentioned else self.values > 0) & (self.known > 0)


class ClassMap:
    """Which classes of a model stand for which tags of a dataset, by name or alias.

    `unknown` are the classes that the dataset's vocabulary does not have: no sample says anything about
    them, so they are masked. `unmapped` are its tags without a class. `doubled` are lists of classes that
    stand for one tag.
    """

    def __init__(self, classes: Sequence[str], vocabulary: Vocabulary) -> None:
        self._places: dict[str, list[int]] = {}
        self.unknown: list[str] = []
        self._known = np.zeros(len(classes), dtype=np.float32)
        for place, name in enumerate(classes):
            tag = vocabulary.resolve(name)
            if tag is None:
                self.unknown.append(name)
            else:
                self._places.setdefault(tag.name, []).append(place)
                self._known[place] = 1
        self.unmapped = [tag.name for tag in vocabulary if tag.name not in self._places]
        shared = [places for places in self._places.values() if len(places) > 1]
        self.doubled = [[classes[place] for place in places] for places in shared]

    def __len__(self) -> int:
        return len(self._known)

    def target(
        self,
        tags: Sequence[SampleTag | NewerTag],
        mentions: Sequence[str],
        choice: TagChoice | None,
        marks: Marks = Marks(),
    ) -> Target:
        """Turn decisions into a target: kept is 1, dropped or never thought of is 0, uncertain is masked."""
        verdicts = ((tag.tag, tag.verdict if choice is None else choice.verdict(tag)) for tag in tags)
        return self.of_verdicts(verdicts, mentions, marks)

    def of_verdicts(
        self, verdicts: Iterable[tuple[str, str]], mentions: Sequence[str], marks: Marks = Marks()
    ) -> Target:
        """As `target`, of tags with their verdicts."""
        values = np.zeros(len(self._known), dtype=np.float32)
        known = self._known.copy()
        unmapped = []
        decided = dict(verdicts)
        beside = [(marks.positive, "kept"), (marks.masked, "uncertain")]
        implied = {tag: verdict for tags, verdict in beside for tag in tags if tag not in decided}
        for tag, verdict in (implied | decided).items():
            if verdict == "kept":
                places = self._places.get(tag)
                if places is None:
                    unmapped.append(tag)
                else:
                    values[places] = 1
            elif verdict != "dropped":
                known[self._places.get(tag, [])] = 0
        mentioned = np.zeros(len(self._known), dtype=np.bool_)
        for name in mentions:
            mentioned[self._places.get(name, [])] = True
        for name in marks.absent:
            if decided.get(name) != "kept":  # a caption that names it is wrong
                places = self._places.get(name, [])
                values[places], known[places], mentioned[places] = 0, 1, False
        return Target(values, known, mentioned, tuple(unmapped))
