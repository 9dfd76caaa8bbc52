"""What must not be in a dataset: images, examples and sources that somebody asked to be taken out."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import lines
from tagmill.transforms.formats.base import InputConfig

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")

IMAGE, KEY, SOURCE = "image", "key", "source"


@dataclass(frozen=True)
class Exclusion:
    """What is excluded.

    Attributes:
        images: Images, by the sha256 of their bytes.
        keys: Examples, by their keys, and all copies of their images.
        sources: All examples of sources, by uri, and all copies of their images.
    """

    images: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.images or self.keys or self.sources)

    @property
    def digest(self) -> str:
        """Hash all of it."""
        return value_digest(sorted(self.hashes()))

    def hashes(self) -> set[str]:
        """Hash each entry: what a run may remember of it."""
        named = ((IMAGE, self.images), (KEY, self.keys), (SOURCE, self.sources))
        return {entry_hash(kind, value) for kind, values in named for value in values}


NOTHING = Exclusion()


def entry_hash(kind: str, value: str) -> str:
    """Hash an entry of a list, or an image that one led to: who does not know it learns nothing of it."""
    return hashlib.sha256(f"tagmill excluded {kind}\0{value}".encode()).hexdigest()


def read_exclusion(inputs: Iterable[InputConfig]) -> Exclusion:
    """Read the files that inputs name under `exclude`; what one excludes is out of all of them.

    Raises ConfigError for a file that is missing, and for a line that names nothing.
    """
    listed = list(inputs)
    uris = dict.fromkeys(source.exclude for source in listed if source.exclude)
    return read_exclusion_files(uris, [source.name for source in listed])


def read_exclusion_files(uris: Iterable[str], inputs: Iterable[str]) -> Exclusion:
    """Read files with a line for each entry: see `Exclusion`. `inputs` are the names of the inputs.

    Raises ConfigError for a file that is missing, and for a line that names nothing.
    """
    found: dict[str, set[str]] = {IMAGE: set(), KEY: set(), SOURCE: set()}
    for uri in uris:
        for kind, value in _entries(uri, set(inputs)):
            found[kind].add(value)
    return Exclusion(*(frozenset(found[kind]) for kind in (IMAGE, KEY, SOURCE)))


def _entries(uri: str, inputs: set[str]) -> Iterator[tuple[str, str]]:
    try:
        text = files.read_bytes(uri).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"exclude: cannot read {uri}: {why or error}") from error
    for number, line in enumerate(lines(text), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, colon, value = line.strip().partition(":")
        if colon and kind == SOURCE and value:
            yield SOURCE, files.absolute(value.strip())
        elif colon and kind == KEY and value:
            yield KEY, value.strip()
        elif _DIGEST.fullmatch(digest := line.strip().removeprefix("sha256:")):
            yield IMAGE, digest.lower()
        elif line.partition("/")[0] in inputs and line.partition("/")[2]:
            yield KEY, line.strip()
        else:
            raise ConfigError(
                f"exclude: {uri}:{number}: {line[:80]!a} names nothing; write the sha256 of an image, "
                f"a key with its input, such as {min(inputs, default='photos')}/000001, or source:PATH"
            )
