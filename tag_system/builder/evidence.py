"""Brings the open sources together for the rules."""

from collections.abc import Callable, Mapping

from tagmill.tag_system.builder import lists
from tagmill.tag_system.builder.counts import Counts
from tagmill.tag_system.builder.lists import CategoryList
from tagmill.tag_system.builder.rules import Evidence
from tagmill.tag_system.errors import ConfigError


def gather(counts: str, packages: str | None, own: Mapping[str, str]) -> Evidence:
    """Read the counts, every list that the packages hold, the user's `own` lists (name to file).

    Raises ConfigError that says what to install or to give for what is missing.
    """
    read = {source: frozenset(lists.read_list(source, packages)) for source in lists.LISTS}
    for name, path in own.items():
        read[CategoryList(name, path)] = frozenset(lists.read_names(path))
    return Evidence(read, frozenset(lists.read_lemmas(packages)), Counts.load(counts), _word_frequency())


def _word_frequency() -> Callable[[str], float]:
    try:
        from wordfreq import zipf_frequency
    except ImportError as exc:
        raise ConfigError("word frequencies need wordfreq: pip install 'tagmill[vocabulary]'") from exc
    return lambda name: float(zipf_frequency(name, "en"))
