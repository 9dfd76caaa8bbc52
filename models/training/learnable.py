"""Which classes of a training its data can teach: told before the first step, and refused unless allowed."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagmill.models.training.loader import Loader
from tagmill.models.training.newer import StoredDecisions
from tagmill.models.training.process import Process
from tagmill.models.training.recipe import Recipe
from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import parse_json
from tagmill.tag_system.label_names import LabelNames
from tagmill.tag_system.vocabulary import normalize_name

FEW = 10
"""Positives under which a class is warned of."""

SHOWN = 10
"""Classes that a line names; the log names all."""

AT_ONCE = 256
"""Records read at a time."""

LONG = 100_000
"""Records from which on counting takes so long that it is announced."""

RECORDS = "records"
"""Stands among the counts for the records that were read."""

COUNTS, LEARNABLE = "positives.json", "learnable.txt"
"""In the folder of a training: the counts, by what they were counted of; and names for `classes`."""


@dataclass(frozen=True)
class ClassSupport:
    """What the training data say about the classes.

    Attributes:
        classes: All classes.
        positives: Samples that are positive for each, those of all datasets; exact below `FEW`.
        unknown: Classes that a dataset's vocabulary does not have, by dataset; none is left out.
        doubled: Lists of classes that are one tag.
        nearest: Tags of any dataset that are spelled much like some of the classes that no dataset knows.
    """

    classes: tuple[str, ...]
    positives: tuple[int, ...]
    unknown: Mapping[str, Sequence[str]]
    doubled: Sequence[Sequence[str]]
    nearest: Mapping[str, Sequence[str]]

    @property
    def nowhere(self) -> list[str]:
        """Classes that no vocabulary has."""
        return [name for name in self.classes if all(name in names for names in self.unknown.values())]

    @property
    def negative(self) -> list[str]:
        """Classes that some vocabulary has, without a positive in any dataset."""
        nowhere, pairs = set(self.nowhere), zip(self.classes, self.positives, strict=True)
        return [name for name, count in pairs if not count and name not in nowhere]

    @property
    def few(self) -> dict[str, int]:
        """Positives of classes that have fewer than `FEW`."""
        pairs = zip(self.classes, self.positives, strict=True)
        return {name: count for name, count in pairs if 0 < count < FEW}

    @property
    def learnable(self) -> list[str]:
        """Classes that can be learned; of those that are one tag the first."""
        twins = {name for first, *others in self.doubled for name in others if name != first}
        pairs = zip(self.classes, self.positives, strict=True)
        return list(dict.fromkeys(name for name, count in pairs if count and name not in twins))

    @property
    def is_whole(self) -> bool:
        """Tell whether every class can be learned as a class of its own."""
        return not (self.nowhere or self.negative or self.doubled)

    def as_json(self) -> dict[str, Any]:
        """Give all of it for the log."""
        return {
            "unknown": {name: list(classes) for name, classes in self.unknown.items() if classes},
            "without_positives": self.negative,
            "few_positives": self.few,
            "doubled": [list(names) for names in self.doubled],
        }

    def notes(self) -> list[str]:
        """Say what does not keep a training from its start, a line each."""
        lines = [
            f"{dataset}: its vocabulary does not have {_count(names)}, masked in its samples: "
            f"{self._with_nearest(names)}"
            for dataset, names in self.unknown.items()
            if names
        ]
        if self.few:
            shown = _some([f"{name} ({count})" for name, count in self.few.items()])
            lines.append(f"{_count(self.few)} with fewer than {FEW} positives, hardly learned: {shown}")
        return lines

    def faults(self) -> list[str]:
        """Say what does, a line each."""
        lines = []
        if self.nowhere:
            lines.append(
                f"{_count(self.nowhere)} that no dataset's vocabulary has: {self._with_nearest(self.nowhere)}"
            )
        if self.negative:
            lines.append(f"{_count(self.negative)} without a positive in any dataset: {_some(self.negative)}")
        if self.doubled:
            shown = _some([" = ".join(names) for names in self.doubled])
            count = "1 tag is" if len(self.doubled) == 1 else f"{len(self.doubled):,} tags are"
            lines.append(f"{count} more than one class: {shown}")
        return lines

    def _with_nearest(self, names: Sequence[str]) -> str:
        near = self.nearest
        return _some(
            [f"{name} (nearest: {', '.join(near[name])})" if near.get(name) else name for name in names]
        )


def check(
    loader: Loader,
    recipe: Recipe,
    classes: tuple[str, ...],
    process: Process,
    say: Callable[[str], None],
    *,
    decisions: StoredDecisions | None = None,
) -> ClassSupport:
    """Look up which classes the data of a training can teach, and say what is amiss.

    The records of the samples are read, without images, until all classes have positives enough; each
    process reads its share. The counts are kept in the folder of the training. `decisions` go before those
    of the shards. Raises ConfigError, on all processes, for classes that cannot be learned, unless the
    recipe allows them.
    """
    newer = None if decisions is None else decisions.about
    digest = digest_of(loader, recipe, classes, newer)
    support = ClassSupport(
        classes,
        _positives(loader, recipe, len(classes), process, digest, say),
        {origin.name: origin.classes.unknown for origin in loader.origins},
        _doubled(loader, classes),
        _nearest(loader),
    )
    for line in support.notes():
        say(line)
    if support.is_whole:
        return support
    faults = support.faults()
    if recipe.allow_unlearnable:
        for line in faults:
            say(f"allowed: {line}")
        return support
    cure = "correct classes, or set allow_unlearnable: true"
    if support.learnable:
        if process.first:
            text = "".join(f"{name}\n" for name in support.learnable)
            files.replace_bytes(str(recipe.folder / LEARNABLE), text.encode())
        cure = (
            f"correct classes, take the {len(support.learnable):,} that can be learned by "
            f"classes: {files.join(recipe.out, LEARNABLE)}, or set allow_unlearnable: true"
        )
    raise ConfigError(*(f"{line}: {cure}" for line in faults))


def _positives(
    loader: Loader,
    recipe: Recipe,
    classes: int,
    process: Process,
    digest: str,
    say: Callable[[str], None],
) -> tuple[int, ...]:
    path = recipe.folder / COUNTS
    # One process may see the folder and another not: what the first has holds for all.
    known = process.gather(Counter(_kept(path, digest) if process.first else {}))
    if not known:
        records = sum(len(dataset.places) for dataset in loader.datasets)
        if records >= LONG:
            say(f"counting the positives of {classes:,} classes, in up to {records:,} records")
        mentioned = recipe.losses.target == "mentioned"
        known = process.gather(_count_positives(loader, classes, mentioned=mentioned))
        if process.first:
            text = json.dumps({"of": digest, "counts": known})
            files.replace_bytes(str(path), f"{text}\n".encode())
    return tuple(known.get(str(at), 0) for at in range(classes))


def _count_positives(loader: Loader, classes: int, *, mentioned: bool) -> Counter[str]:
    """Count by the place of the class until every class has `FEW`, and the records that it took.

    For a class that has fewer all processes have read their whole share, so the sum over them is exact.
    """
    counts, records = np.zeros(classes, np.int64), 0
    for targets in loader.targets(AT_ONCE):
        records += len(targets)
        for _, target in targets:
            counts += target.positives(mentioned=mentioned)
        if (counts >= FEW).all():
            break
    return Counter({RECORDS: records} | {str(at): int(count) for at, count in enumerate(counts)})


def digest_of(loader: Loader, recipe: Recipe, classes: Sequence[str], decisions: Any) -> str:
    """Hash all that positives depend on."""
    choices: list[Any] = [
        None if one.choice is None else one.choice.model_dump(mode="json") for one in loader.origins
    ]
    choices += [vars(one.marks) for one in loader.origins]
    shards = [[shard.sha256 for shard in dataset.shards] for dataset in loader.datasets]
    vocabularies = [dataset.vocabulary.digest for dataset in loader.datasets]
    return value_digest([list(classes), choices, shards, vocabularies, recipe.losses.target, decisions])


def _kept(path: Path, digest: str) -> dict[str, int]:
    """Read the counts that an earlier start left, if they are of the same data and classes."""
    try:
        found = parse_json(path.read_text())
        return dict(found["counts"]) if found["of"] == digest else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _doubled(loader: Loader, classes: Sequence[str]) -> list[list[str]]:
    """List classes that are one tag in some vocabulary, or that differ in their writing alone."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(normalize_name(name), []).append(name)
    groups = [names for origin in loader.origins for names in origin.classes.doubled]
    groups += [names for names in alike.values() if len(names) > 1]
    return [list(names) for names in dict.fromkeys(map(tuple, groups))]


def _nearest(loader: Loader) -> dict[str, list[str]]:
    """Look for tags that are spelled like unknown classes, for as many as a line shows of each dataset."""
    found: dict[str, list[str]] = {}
    for dataset, origin in zip(loader.datasets, loader.origins, strict=True):
        names = LabelNames(dataset.vocabulary)
        for name in origin.classes.unknown[:SHOWN]:
            found[name] = list(dict.fromkeys([*found.get(name, ()), *names.nearest(name)]))
    return found


def _count(names: Iterable[str]) -> str:
    count = len(list(names))
    return "1 class" if count == 1 else f"{count:,} classes"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
