"""Maps the class names of a model to tags of the vocabulary, by name or alias."""

from collections.abc import Iterable, Sequence

from tagmill.tag_system.vocabulary import Vocabulary


class ClassNames:
    """Which tag each class of a model stands for; several classes may share one tag.

    `tag_of` gives the tag of a class that has one; `unmapped` are the classes that have none.
    """

    def __init__(self, classes: Sequence[str], vocabulary: Vocabulary) -> None:
        self.tag_of: dict[str, str] = {}
        self.unmapped: list[str] = []
        self._names: dict[str, list[str]] = {}
        for name in classes:
            tag = vocabulary.resolve(name)
            if tag is None:
                self.unmapped.append(name)
            elif name not in self.tag_of:
                self.tag_of[name] = tag.name
                self._names.setdefault(tag.name, []).append(name)

    def names_of(self, tag: str) -> list[str]:
        """Give the classes of a tag in the model's order; none if the model does not know it."""
        return self._names.get(tag, [])


def summary(unmapped: Iterable[str], limit: int = 20) -> str:
    """Name the classes that have no tag, for reports: all of a few, else the first and the count."""
    names = list(unmapped)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
