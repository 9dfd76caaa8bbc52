"""Brings the open sources together for the rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tagmill.tag_system.builder import lists
from tagmill.tag_system.builder.counts import PhraseCounts
from tagmill.tag_system.builder.lists import CategoryList
from tagmill.tag_system.builder.norms import Norms, read_norms
from tagmill.tag_system.core.errors import ConfigError


@dataclass(frozen=True)
class NameEvidence:
    """What the open sources say: the names of each list, ImageNet-21k's lemmas, the counts of captions,
    `frequency`, how common a word is in English (Zipf's scale: 3 is once in a million words), and norms.
    """

    lists: dict[CategoryList, frozenset[str]]
    lemmas: frozenset[str]
    counts: PhraseCounts
    frequency: Callable[[str], float]
    norms: Norms = field(default_factory=Norms)

    def sources(self, name: str) -> tuple[str, ...]:
        """Every list that has the name, and its count in captions where they say it."""
        found = [source.name for source, names in self.lists.items() if name in names]
        if name in self.lemmas:
            found.append("imagenet-21k")
        if said := self.counts.of(name):
            found.append(f"captions:{said}")
        return tuple(found)


def gather(counts: str, packages: str | None, own: Mapping[str, str]) -> NameEvidence:
    """Read the counts, every list and norm that the packages hold, the user's `own` lists (name to file).

    Raises ConfigError that says what to install or to give for what is missing.
    """
    read = {source: frozenset(lists.read_list(source, packages)) for source in lists.LISTS}
    for name, path in own.items():
        read[CategoryList(name, path)] = frozenset(lists.read_names(path))
    lemmas = frozenset(lists.read_lemmas(packages))
    return NameEvidence(read, lemmas, PhraseCounts.load(counts), _word_frequency(), read_norms(packages))


def _word_frequency() -> Callable[[str], float]:
    try:
        from wordfreq import zipf_frequency
    except ImportError as exc:
        raise ConfigError("word frequencies need wordfreq: pip install 'tagmill[vocabulary]'") from exc
    return lambda name: float(zipf_frequency(name, "en"))
