"""What tags the labels of a source stand for: by a person's list, by name, or by words written together."""

import csv
import difflib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import lines
from tagmill.tag_system.vocabulary import Tag, Vocabulary, normalize_name

MAX_NEAREST = 3


class LabelNames:
    """Maps given labels to tags.

    Args:
        vocabulary: The vocabulary.
        listed: A label's tag, or "" for a label that none of the tags is meant by; these go before all else.

    Raises:
        ConfigError: A label is listed twice, or with what is not a tag.

    Examples:
        >>> names = LabelNames(Vocabulary.load(), {"Settee 2": "sofa"})
        >>> [names.resolve(label).name for label in ("Settee 2", "diningtable", "dining_table")]
        ['couch', 'dining table', 'dining table']
        >>> names.resolve("gryphon") is None
        True
    """

    def __init__(self, vocabulary: Vocabulary, listed: Mapping[str, str] | None = None) -> None:
        self._vocabulary = vocabulary
        self._listed: dict[str, Tag | None] = {}
        for label, name in (listed or {}).items():
            tag = vocabulary.resolve(name) if name else None
            if name and tag is None:
                raise ConfigError(f"label_map: {label} -> {name}: not a tag{self._hint(name)}")
            self._listed[normalize_name(label)] = tag

    @classmethod
    def load(cls, vocabulary: Vocabulary, path: str | None) -> "LabelNames":
        """Read a list of labels and tags: UTF-8, two columns between tabs or commas; None is no list.

        Raises ConfigError as the class does, and for a file that is not such a list, with the line.
        """
        if path is None:
            return cls(vocabulary)
        try:
            text = lines(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"label_map: cannot read {path}: {why}") from error
        listed: dict[str, str] = {}
        for number, line in enumerate(text, start=1):
            if line.strip() and not line.startswith("#"):
                cells = line.split("\t") if "\t" in line else next(csv.reader([line]))
                if len(cells) != 2 or not cells[0].strip():
                    raise ConfigError(f"label_map: {path}:{number}: write a label, a tab, and its tag")
                label, tag = (cell.strip() for cell in cells)
                if normalize_name(label) in map(normalize_name, listed):
                    raise ConfigError(f"label_map: {path}:{number}: {label} is listed twice")
                listed[label] = tag
        return cls(vocabulary, listed)

    @property
    def digest(self) -> str | None:
        """Hash the list; None if there is none."""
        named = {label: tag.name if tag else "" for label, tag in self._listed.items()}
        return value_digest(named) if named else None

    def resolve(self, label: str) -> Tag | None:
        """Give the tag of a label, or None."""
        name = normalize_name(label)
        if name in self._listed:
            return self._listed[name]
        return self._vocabulary.resolve(name) or self._joined.get(name.replace(" ", ""))

    def is_listed(self, label: str) -> bool:
        """Tell whether a person has said what a label stands for, be it nothing."""
        return normalize_name(label) in self._listed

    def nearest(self, label: str) -> list[str]:
        """Name the tags whose names are most like a label, the nearest first."""
        near = difflib.get_close_matches(normalize_name(label), self._spelled, n=MAX_NEAREST, cutoff=0.7)
        return list(dict.fromkeys(self._spelled[name] for name in near))

    @cached_property
    def _spelled(self) -> dict[str, str]:
        """The tag of every name and alias."""
        return {
            normalize_name(name): tag.name for tag in self._vocabulary for name in (tag.name, *tag.aliases)
        }

    @cached_property
    def _joined(self) -> dict[str, Tag]:
        """The tags of names of several words, written together; none where that could be two."""
        found: dict[str, set[str]] = {}
        for name, tag in self._spelled.items():
            found.setdefault(name.replace(" ", ""), set()).add(tag)
        only = {name: tags.pop() for name, tags in found.items() if len(tags) == 1}
        resolved = {name: self._vocabulary.resolve(tag) for name, tag in only.items()}
        return {name: tag for name, tag in resolved.items() if tag is not None}

    def _hint(self, name: str) -> str:
        near = self.nearest(name)
        return f"; did you mean {' or '.join(near)}?" if near else ""
