"""What WordNet (through nltk) knows of a name: its sense, what sort of thing it is, its synonyms."""

import re
from functools import lru_cache
from typing import Any

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import Kind
from tagmill.tag_system.vocabulary import normalize_name

CONCRETE = frozenset(
    {"artifact", "animal", "food", "plant", "body", "object", "substance", "phenomenon", "shape"}
)
"""The lexicographer's classes of nouns for what can be seen and touched."""

_PLACES = frozenset(
    {
        "body_of_water.n.01", "geological_formation.n.01", "room.n.01", "land.n.04", "tract.n.01",
        "facility.n.01", "house.n.01", "building.n.01", "way.n.06", "geographical_area.n.01", "region.n.03",
        "establishment.n.04", "weather.n.01", "time_of_day.n.01", "season.n.02", "biome.n.01",
    }
)  # fmt: skip


_CAPITALS = {"animal", "food", "plant", "artifact"}
_HOLIDAY = "day.n.03"

_ALIAS = re.compile(r"[a-z]{3,}(?:[_-][a-z]+){0,2}")


@lru_cache(maxsize=1)
def reader() -> Any:
    """The corpus; ConfigError if nltk or the corpus is missing."""
    try:
        from nltk.corpus import wordnet
    except ImportError as exc:
        raise ConfigError("WordNet needs nltk: pip install 'tagmill[vocabulary]'") from exc
    try:
        wordnet.ensure_loaded()
    except LookupError as exc:
        raise ConfigError(
            "the WordNet corpus is missing: run `python -m nltk.downloader wordnet`, or set NLTK_DATA"
        ) from exc
    return wordnet


def synset(name: str) -> Any:
    """The sense of a name such as dog.n.01. Raises ConfigError if there is none."""
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        return reader().synset(name)
    except (WordNetError, ValueError) as exc:
        raise ConfigError(f"WordNet has no synset {name!r}, which the vocabulary names: {exc}") from exc


@lru_cache(maxsize=4)
def lemmas(pos: str) -> tuple[str, ...]:
    """The lemmas of a part of speech (n, v, a), without the names of certain persons and places.

    Of what is written with a capital, breeds, dishes, plants, things and holidays (`german shepherd`,
    `christmas`) stay; peoples, languages, faiths go.
    """
    kept = (lemma for lemma in reader().all_lemma_names(pos=pos) if _is_common(lemma, pos))
    return tuple(dict.fromkeys(map(normalize_name, kept)))


def _is_common(lemma: str, pos: str) -> bool:
    return any(
        lemma in _spellings(sense)
        or (not sense.instance_hypernyms() and (class_of(sense) in _CAPITALS or is_holiday(sense)))
        for sense in reader().synsets(lemma, pos=pos)
    )


@lru_cache(maxsize=1 << 17)
def senses(name: str, pos: str) -> tuple[Any, ...]:
    """The senses of a name in WordNet's order; of its base form if it has none itself."""
    found = reader().synsets(name.replace(" ", "_"), pos=pos)
    return tuple(sense for sense in found if pos != "n" or not sense.instance_hypernyms())


@lru_cache(maxsize=1 << 17)
def mostly(name: str, pos: str) -> bool:
    """Whether the texts that WordNet's senses are counted in use the word as this part of speech."""
    counts = dict.fromkeys("nvars", 0)
    for sense in reader().synsets(name.replace(" ", "_")):
        own = (lemma.count() for lemma in sense.lemmas() if normalize_name(lemma.name()) == name)
        counts[sense.pos()] += sum(own)
    return counts[pos] * 2 >= sum(counts.values())


@lru_cache(maxsize=1 << 17)
def is_proper(name: str) -> bool:
    """Whether the word also names a certain person or place (john, china, ford)."""
    return any(sense.instance_hypernyms() for sense in reader().synsets(name.replace(" ", "_"), pos="n"))


@lru_cache(maxsize=1 << 17)
def is_proper_first(name: str) -> bool:
    """Whether a certain person or place is what the word names first of all (china)."""
    return any(sense.instance_hypernyms() for sense in reader().synsets(name.replace(" ", "_"), pos="n")[:1])


def verb_of(form: str) -> str | None:
    """The verb that WordNet takes a form for, None if for none."""
    found = reader().morphy(form, "v")
    return str(found) if found else None


@lru_cache(maxsize=1 << 17)
def is_plural(name: str) -> bool:
    """Whether WordNet knows the noun by its singular alone (dogs)."""
    return str(reader().morphy(name.replace(" ", "_"), "n") or name) != name.replace(" ", "_")


def depth(sense: Any) -> int:
    """How many steps lie above the sense: few above `structure`, many above `gazebo`."""
    return len(_ancestors(sense)) - 1


def sense_of(name: str, kind: Kind) -> Any | None:
    """The sense meant by a tag of a kind: the first, or the first that can be seen where it is an object."""
    found = senses(name, {"action": "v", "attribute": "a"}.get(kind, "n")) or senses(name, "n")
    if kind == "object":
        return next((sense for sense in found if class_of(sense) in CONCRETE), next(iter(found), None))
    return next(iter(found), None)


def noun_sense(name: str, *, concrete: bool) -> Any | None:
    """The first sense of a noun; of a `concrete` one the first that can be seen, a person or a place too."""
    found = senses(name, "n")
    first = next(iter(found), None)
    if first is None or not concrete or class_of(first) in ("person", "location") or is_place(first):
        return first
    return next((sense for sense in found if class_of(sense) in CONCRETE), first)


def is_main(name: str, sense: Any) -> bool:
    """Whether a name is often used in a sense: its first, or one that WordNet's texts have."""
    if senses(name, sense.pos())[:1] == (sense,):
        return True
    return any(lemma.count() for lemma in sense.lemmas() if normalize_name(lemma.name()) == name)


def class_of(sense: Any) -> str:
    """The lexicographer's class: artifact, animal, person, motion ..."""
    return str(sense.lexname()).partition(".")[2]


def is_place(sense: Any) -> bool:
    """Whether the sense is a sort of place, season or weather."""
    return any(name in _PLACES for name in _ancestors(sense))


def is_capitalised(name: str, sense: Any) -> bool:
    """Whether WordNet writes the name of a sense with a capital: `Jonathan`, the apple."""
    return any(one != one.lower() and normalize_name(one) == name for one in _spellings(sense))


def is_holiday(sense: Any) -> bool:
    """Whether the sense is a day that people celebrate."""
    return class_of(sense) == "time" and _HOLIDAY in _ancestors(sense)[1:]


def hypernyms(sense: Any) -> tuple[str, ...]:
    """What the sense is a sort of, the nearest first, up to three."""
    return tuple(normalize_name(name.partition(".")[0]) for name in _ancestors(sense)[1:4])


def synonyms(sense: Any) -> list[str]:
    """The other names of a sense that mean it first of all, in WordNet's order.

    A lemma whose own first sense is another (`can` for toilet) is not an alias.
    """
    found = []
    for lemma in _spellings(sense):
        own = senses(normalize_name(lemma), sense.pos())
        if own and own[0] == sense and _ALIAS.fullmatch(lemma):
            found.append(normalize_name(lemma))
    return found


@lru_cache(maxsize=1 << 16)
def _ancestors(sense: Any) -> tuple[str, ...]:
    names: list[str] = []
    # Some verbs are, step by step, a sort of themselves.
    while sense is not None and str(sense.name()) not in names:
        names.append(str(sense.name()))
        # nltk gives several in an order that changes from run to run.
        sense = min(sense.hypernyms(), key=lambda above: str(above.name()), default=None)
    return tuple(names)


def _spellings(sense: Any) -> list[str]:
    return [str(lemma) for lemma in sense.lemma_names()]
