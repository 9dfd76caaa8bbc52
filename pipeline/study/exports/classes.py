"""The classes that an export numbers: the tags of the vocabulary, or those of a list of somebody else."""

from collections import Counter
from pathlib import Path

from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary

UNMAPPED = "tags that the list of classes does not have"


class Classes:
    """Numbered classes; `names` are in the order of the numbers, from 0."""

    def __init__(self, vocabulary: Vocabulary, uri: str | None, lost: Counter[str]) -> None:
        """Take the vocabulary, or the file `uri`, a class a line, whose names are matched as captions' are.

        Raises ConfigError for a file that cannot be read, or that has no tag of the vocabulary.
        """
        self._lost = lost
        if uri is None:
            self.names = [tag.name for tag in vocabulary]
            self._numbers = {name: number for number, name in enumerate(self.names)}
            return
        self.names = _lines(uri)
        self._numbers = {}
        for number, name in enumerate(self.names):
            if tag := vocabulary.resolve(name):
                self._numbers.setdefault(tag.name, number)
        if not self._numbers:
            raise ConfigError(f"{uri}: no line of it is a tag of the dataset's vocabulary")

    def number(self, tag: str) -> int | None:
        """Give the number of a tag; None, and counted, for one that the list does not have."""
        found = self._numbers.get(tag)
        if found is None:
            self._lost[UNMAPPED] += 1
        return found

    def known(self, tag: str) -> int | None:
        """Give the number of a tag, or None."""
        return self._numbers.get(tag)

    def write(self, path: Path) -> None:
        """Write the names, one a line."""
        path.write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")


def _lines(uri: str) -> list[str]:
    try:
        text = files.read_bytes(uri).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--classes {uri} cannot be read as UTF-8 text: {error}") from error
    names = [line.strip() for line in text.split("\n")]
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise ConfigError(f"--classes {uri}: it must have a name in each line, whose place is its number")
    return names
