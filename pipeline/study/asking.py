"""Asks a tagger about a list of tags, and checks its answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from tagmill.models.base import Floats, PartialTagger, Prepared, Tagger
from tagmill.models.training import benchmarks
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary, normalize_name
from tagmill.transforms.answers import check_scores

Ask = Callable[[Sequence[Prepared]], list[Floats]]

SHOWN = 5
"""Names that a message lists."""


@dataclass(frozen=True)
class TagList:
    """The tags of a user's list, mapped to the classes of a model.

    Attributes:
        classes: Indices of the model's classes of each tag; empty for a tag that the model lacks.
        names: The written name, by the vocabulary's name of the tag.
        merged: The written name that is used, by another written name of the same tag.
        source: How messages name the list.
    """

    classes: Mapping[str, Sequence[int]]
    names: Mapping[str, str]
    source: str
    merged: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, classes: Sequence[str], vocabulary: Vocabulary) -> "TagList":
        """Read a list, one tag a line, as `tagmill models eval` does. Raises ConfigError, see `of`."""
        return cls.of(benchmarks.read_tags(path), classes, vocabulary, str(path))

    @classmethod
    def of(
        cls, names: Sequence[str], classes: Sequence[str], vocabulary: Vocabulary, source: str
    ) -> "TagList":
        """Find the model's classes for names: a class is asked by the name that spells it.

        A class that none spells is asked by the first name of its tag. A list of numbers names classes by
        their place, from 0, as Tag2Text's official lists do. Raises ConfigError for names that neither the
        vocabulary nor the model knows, and for a list of which the model has no class.
        """
        if not names:
            raise ConfigError(f"{source} lists no tags: give one or more")
        if all(name.isdecimal() for name in names):
            numbered: dict[str, list[int]] = {}
            for place in dict.fromkeys(benchmarks.columns(names, classes)):
                numbered.setdefault(classes[place], []).append(place)
            return cls(numbered, {_tag(name, vocabulary): name for name in numbered}, source)
        known = {_tag(name, vocabulary) for name in classes}
        unknown = [name for name in names if name not in vocabulary and _tag(name, vocabulary) not in known]
        if unknown:
            raise ConfigError(
                f"{source}: {len(unknown)} of the {len(names)} names are neither tags of the vocabulary nor "
                f"classes of the model ({_first(unknown)}): correct or remove them"
            )
        spelt, first = dict[str, str](), dict[str, str]()
        for name in names:
            first.setdefault(_tag(name, vocabulary), spelt.setdefault(normalize_name(name), name))
        found: dict[str, list[int]] = {name: [] for name in spelt.values()}
        for place, name in enumerate(classes):
            asker = spelt.get(normalize_name(name)) or first.get(_tag(name, vocabulary))
            if asker is not None:
                found[asker].append(place)
        if not any(found.values()):
            raise ConfigError(
                f"{source}: the model has no class for any of the {len(found)} tags ({_first(list(found))})"
            )
        written: dict[str, str] = {}
        for name in sorted(found, key=lambda name: not found[name]):  # those with classes before the others
            written.setdefault(_tag(name, vocabulary), name)
        given = {name: written[_tag(name, vocabulary)] for name in found}
        merged = {name: other for name, other in given.items() if other != name and not found[name]}
        asked = {name: places for name, places in found.items() if name not in merged}
        return cls(asked, written, source, merged)

    @property
    def columns(self) -> tuple[int, ...]:
        """The places of all tags' classes, rising."""
        return tuple(sorted(self.written))

    @cached_property
    def written(self) -> dict[int, str]:
        """The written name of each of these places."""
        return {place: name for name, places in self.classes.items() for place in places}

    def remarks(self) -> Iterator[str]:
        """Say, a line each, which tags the model has no class for, and which names are one tag."""
        without = [name for name, places in self.classes.items() if not places]
        if without:
            yield (
                f"{self.source}: the model has no class for {len(without)} of the {len(self.classes)} tags "
                f"and never gives them ({_first(without)}); `tagmill models relabel` changes the classes "
                "of a RAM"
            )
        if self.merged:
            name, first = next(iter(self.merged.items()))
            yield (
                f"{self.source}: {len(self.merged)} names are another one's synonyms and given by that, as "
                f"{name!r} by {first!r}"
            )


def answers(tagger: Tagger, columns: Sequence[int] | None = None) -> Ask:
    """Make the call that scores all classes of a tagger, or some: float32 (classes,) for each image.

    A tagger that can leave the others out does, see `PartialTagger`. The call raises as `checked` does.
    """
    every = checked(tagger.predict, len(tagger.classes), type(tagger).__name__)
    if columns is None:
        return every
    if isinstance(tagger, PartialTagger):
        return checked(partial(tagger.predict_some, places=columns), len(columns), type(tagger).__name__)
    return lambda batch: [scores[list(columns)] for scores in every(batch)]


def checked(
    call: Callable[[Sequence[Prepared]], Sequence[Floats]], count: int, name: str = "the model"
) -> Ask:
    """Check that a call gives `count` scores in 0..1 for each image.

    Raises FloatingPointError for NaN, which may be one image's; and ConfigError that says how the model,
    which is called `name`, breaks the Protocol: no image is to blame for that.
    """

    def ask(batch: Sequence[Prepared]) -> list[Floats]:
        answer = call(batch)
        try:
            found = [np.asarray(scores, np.float32) for scores in answer]
            if len(found) != len(batch):
                raise ValueError(f"the model gave scores of {len(found)} images for {len(batch)}")
            for scores in found:
                if np.isnan(scores).any():
                    raise FloatingPointError(f"{name} gave NaN")
                check_scores(scores, count)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{name} does not answer as a tagger: {error}") from error
        return found

    return ask


def _tag(name: str, vocabulary: Vocabulary) -> str:
    known = vocabulary.resolve(name)
    return normalize_name(name) if known is None else known.name


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
