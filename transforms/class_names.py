"""Maps the class names of a model to tags of the vocabulary, by name or alias."""

from collections.abc import Iterable, Sequence

import numpy as np

from tagmill.models.base import Floats
from tagmill.tag_system.vocabulary import Vocabulary


class ClassNames:
    """Which tag each class of a model stands for; several classes may share one tag.

    `tags` are the tags that the model knows, in vocabulary order; `unmapped` its classes that are no tag.
    """

    def __init__(self, classes: Sequence[str], vocabulary: Vocabulary) -> None:
        found = [(index, vocabulary.resolve(name)) for index, name in enumerate(classes)]
        pairs = [(index, tag) for index, tag in found if tag is not None]
        self.unmapped = [classes[index] for index, tag in found if tag is None]
        self.tags = [tag.name for tag in sorted({tag for _, tag in pairs}, key=lambda tag: tag.id)]
        self._ids = sorted({tag.id for _, tag in pairs})
        place = {name: i for i, name in enumerate(self.tags)}
        self._sources = np.array([index for index, _ in pairs], dtype=np.int64)
        self._targets = np.array([place[tag.name] for _, tag in pairs], dtype=np.int64)
        self._names: dict[str, list[str]] = {}
        for index, tag in pairs:
            self._names.setdefault(tag.name, []).append(classes[index])

    def tag_scores(self, scores: Floats) -> Floats:
        """Turn class scores (classes,) into tag scores (len(tags),): the maximum of a tag's classes."""
        merged = np.full(len(self.tags), -np.inf, dtype=np.float32)
        np.maximum.at(merged, self._targets, scores[self._sources])
        return merged

    def names_of(self, tag: str) -> list[str]:
        """Give the classes of a tag; none if the model does not know it."""
        return self._names.get(tag, [])

    def mask(self, size: int) -> str:
        """Write which of the vocabulary's `size` tags the model knows: a bit an id, hexadecimal."""
        bits = np.zeros(size, dtype=bool)
        bits[self._ids] = True
        return np.packbits(bits).tobytes().hex()


def masked_tags(mask: str, vocabulary: Vocabulary) -> set[str]:
    """Read a mask back into tag names."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(mask), dtype=np.uint8))
    return {tag.name for tag in vocabulary if bits[tag.id]}


def summary(unmapped: Iterable[str], limit: int = 20) -> str:
    """Name the classes that are no tag, for reports: all of a few, else the first and the count."""
    names = list(unmapped)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
