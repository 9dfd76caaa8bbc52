"""What is counted of the samples of a shard, and of a dataset."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.licences import UNKNOWN

MOST, OTHERS = 1_000, "others"
"""How many licences are told apart at most, and what the rest counts as: a source may hold any text."""


class SampleCounts:
    """Counts of samples.

    Attributes:
        formats: Samples by the extension of their images.
        kept_by: Kept tags by what vouches for them, see `decisions.Basis`.
        rules: Decisions by `verdict/rule`.
        licenses: Samples by their licence.
        inputs: Samples by the name of their input.
    """

    def __init__(self) -> None:
        self.formats: Counter[str] = Counter()
        self.kept_by: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.licenses: Counter[str] = Counter()
        self.inputs: Counter[str] = Counter()

    @property
    def examples(self) -> int:
        """Count the samples."""
        return self.formats.total()

    def add(self, sample: Mapping[str, Any]) -> None:
        """Count a sample, as `shard_contract.Sample` has it."""
        self.formats[contract.EXTENSIONS[sample["format"]]] += 1
        self.kept_by.update(tag["basis"] for tag in sample["tags"] if tag["verdict"] == "kept")
        self.rules.update(f"{tag['verdict']}/{tag['rule']}" for tag in sample["tags"])
        self.licenses[sample.get("license", UNKNOWN)] += 1
        self.inputs[sample["key"].partition("/")[0]] += 1

    def update(self, told: Mapping[str, Any]) -> None:
        """Add the counts of other samples, as `told` gives them."""
        for name, counter in vars(self).items():
            counter.update(told[name])

    def told(self) -> dict[str, dict[str, int]]:
        """Give all counts as JSON, sorted by name."""
        limited = vars(self) | {"licenses": _limited(self.licenses)}
        return {name: dict(sorted(counter.items())) for name, counter in limited.items()}


def _limited(counts: Counter[str]) -> Counter[str]:
    """Sum up what comes after the most frequent ones."""
    if len(counts) <= MOST:
        return counts
    ranked = sorted(counts, key=lambda name: (name != UNKNOWN, -counts[name], name))
    limited = Counter({name: counts[name] for name in ranked[:MOST]})
    limited[OTHERS] += sum(counts[name] for name in ranked[MOST:])
    return limited
