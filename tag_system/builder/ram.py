"""The official lists of RAM as a vocabulary: their ids, with kinds, aliases, Chinese names, thresholds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tagmill.tag_system.builder import wordnet
from tagmill.tag_system.core import text as texts
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import KINDS, Kind
from tagmill.tag_system.vocabulary import Origin, Tag, Vocabulary, normalize_name

# Words that the official list spells wrongly, and how they are spelt.
_MISSPELT = {
    "dinning": "dining",
    "kindergarden": "kindergarten",
    "archaelogical": "archaeological",
    "billard": "billiard",
    "nightview": "night view",
}
_BRITISH = {
    "aluminum": "aluminium", "armor": "armour", "airplane": "aeroplane", "catalog": "catalogue",
    "center": "centre", "color": "colour", "colorful": "colourful", "cozy": "cosy", "curb": "kerb",
    "donut": "doughnut", "draft": "draught", "favorite": "favourite", "fiber": "fibre", "flavor": "flavour",
    "gray": "grey", "harbor": "harbour", "jewelry": "jewellery", "license": "licence", "meter": "metre",
    "mold": "mould", "mustache": "moustache", "neighborhood": "neighbourhood", "pajamas": "pyjamas",
    "plow": "plough", "program": "programme", "theater": "theatre", "tire": "tyre", "traveler": "traveller",
    "woolen": "woollen", "yogurt": "yoghurt",
}  # fmt: skip
_SPELLINGS = _MISSPELT | _BRITISH | {british: american for american, british in _BRITISH.items()}

_VERBS = {"play", "playing", "climb", "shooting"}
_PARTICLES = {"at", "down", "off", "on", "out", "over", "to", "up"}

_KIND_OF_CLASS: dict[str, Kind] = {"act": "action", "event": "scene", "location": "scene", "time": "scene"}


@dataclass(frozen=True)
class RamDecision:
    """What is decided by hand on a name of the official list, and why: `barred` are not aliases of it."""

    kind: Kind
    aliases: tuple[str, ...]
    barred: frozenset[str]
    reason: str


def read_decisions() -> dict[str, RamDecision]:
    """The decisions of `ram_names.tsv` by normalised name; ConfigError for a line without a reason."""
    text = files("tagmill.tag_system.builder").joinpath("ram_names.tsv").read_text(encoding="utf-8")
    found: dict[str, RamDecision] = {}
    for number, line in enumerate(texts.lines(text), start=1):
        if line.startswith("#"):
            continue
        name, kind, aliases, reason = (*line.split("\t"), "", "", "")[:4]
        if kind not in KINDS or not reason:
            raise ConfigError(f"ram_names.tsv:{number}: write name, kind, aliases, reason")
        given = [alias for alias in aliases.split("|") if alias]
        found[normalize_name(name)] = RamDecision(
            kind,
            tuple(normalize_name(alias) for alias in given if not alias.startswith("-")),
            frozenset(normalize_name(alias[1:]) for alias in given if alias.startswith("-")),
            reason,
        )
    return found


def import_ram(
    names: Sequence[str],
    chinese: Sequence[str] | None = None,
    thresholds: Sequence[str] | None = None,
    known: Vocabulary | None = None,
) -> Vocabulary:
    """A vocabulary in which tag i is line i of the official list.

    `chinese` and `thresholds` are the files beside it, as many lines. Kinds and aliases are those of
    `ram_names.tsv`, then those of `known`, by default the built-in vocabulary, then WordNet's. Raises
    ConfigError for files of other lengths, for empty lines and for a name that the text format cannot hold.
    """
    for what, lines in (("Chinese names", chinese), ("thresholds", thresholds)):
        if lines is not None and len(lines) != len(names):
            raise ConfigError(f"{len(names)} tags but {len(lines)} {what}: give files of one release")
    known = known or Vocabulary.load()
    decided = read_decisions()
    listed = {normalize_name(name) for name in names}
    taken = listed.union(*(decision.aliases for decision in decided.values()))
    tags: list[Tag] = []
    seen: set[str] = set()
    for number, given in enumerate(names):
        # The list has both `t shirt` and `t-shirt`, one name to us; the second keeps its id.
        name = f"{given} (2)" if normalize_name(given) in seen else given
        seen.add(normalize_name(name))
        spelt = " ".join(_MISSPELT.get(word, word) for word in normalize_name(given).split())
        found = known.resolve(spelt)
        decision = decided.get(normalize_name(given))
        kind = decision.kind if decision else found.kind if found else _kind(spelt)
        sense = wordnet.sense_of(spelt, kind)
        # `adult` is an alias of our person; its other names belong to RAM's own person.
        lends = found if found and normalize_name(found.name) not in taken - {spelt} else None
        kept = taken | decision.barred if decision else taken
        aliases = [alias for alias in decision.aliases if alias not in listed] if decision else []
        aliases += [alias for alias in _aliases(name, sense, kind, lends) if alias not in kept]
        taken.update(aliases)
        origin = Origin(
            synset=str(sense.name()) if sense is not None else "",
            hypernyms=wordnet.hypernyms(sense) if sense is not None else (),
            sources=("ram",),
            rule="official list",
            chinese=chinese[number] if chinese else "",
            threshold=_threshold(thresholds[number], number) if thresholds else None,
        )
        tags.append(Tag(number, name, kind, tuple(dict.fromkeys(aliases)), origin))
    return Vocabulary(tags)


def read_lines(path: str) -> list[str]:
    """The lines of a list without the blanks around them; ConfigError for what is not UTF-8 text."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read {path}: {exc}; give the official UTF-8 text file") from exc
    return [line.strip() for line in text.rstrip("\n").split("\n")]


def _aliases(name: str, sense: Any | None, kind: Kind, lends: Tag | None) -> Iterator[str]:
    """Other spellings first, then what the known vocabulary calls it, then WordNet's synonyms."""
    words = normalize_name(name).split()
    for place, word in enumerate(words):
        if word in _SPELLINGS:
            yield " ".join([*words[:place], _SPELLINGS[word], *words[place + 1 :]])
    if lends:
        yield from map(normalize_name, (lends.name, *lends.aliases))
    if sense is not None and kind != "action":
        for alias in wordnet.synonyms(sense):
            if wordnet.mostly(alias, sense.pos()) and not _describes(alias, words):
                yield alias


def _describes(alias: str, name: Sequence[str]) -> bool:
    """Whether the alias says something else: a young woman is not a girl."""
    first, *rest = alias.split()
    if not rest:
        return False
    adjective = wordnet.senses(first, "a") and not any(wordnet.mostly(first, pos) for pos in "nv")
    return bool(adjective) or [first, rest[0]] == [*name, "of"]


def _kind(name: str) -> Kind:
    """What WordNet says the name is; a phrase is its last word, or an action that begins with a verb."""
    first, _, rest = name.partition(" ")
    nouns = wordnet.senses(name, "n")
    if rest and not nouns:
        if first in _VERBS or (rest in _PARTICLES and wordnet.senses(first, "v")):
            return "action"
        last = _kind(name.rpartition(" ")[2])
        return "object" if last == "action" else last
    for pos, kind in (("v", "action"), ("a", "attribute")):
        if wordnet.senses(name, pos) and (not nouns or not wordnet.mostly(name, "n")):
            return kind  # type: ignore[return-value]  # both are kinds
    if not nouns:
        return "object"
    if wordnet.is_place(nouns[0]):
        return "scene"
    return _KIND_OF_CLASS.get(wordnet.class_of(nouns[0]), "object")


def _threshold(text: str, number: int) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise ConfigError(f"the threshold of tag {number} is {text!r}, not a number") from exc
