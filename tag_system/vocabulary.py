"""The list of tags: what a tag is called, which kind of thing it names, which other names it has."""

import hashlib
import json
import pickle
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.kinds import KINDS, Kind

COLUMNS = ("name", "kind", "aliases", "id", "synset", "hypernyms", "sources", "rule", "chinese", "threshold")

_HEADER = "# lists are separated by |; the order of the lines is the order of the ids\n# " + "\t".join(
    COLUMNS
)
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")


def normalize_name(name: str) -> str:
    """The form under which names are compared: casefolded words, one space between them."""
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", name).casefold()).strip()


@dataclass(frozen=True)
class Origin:
    """Where a tag comes from. It does not change what the tag means, so digests leave it out.

    `synset` is its WordNet name (dog.n.01), `hypernyms` the names of what it is a sort of, the nearest
    first; `sources` name a list that has it, or a count (captions:128); `rule` is what kept it. `chinese`
    and `threshold` come with the official lists of RAM.
    """

    synset: str = ""
    hypernyms: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    rule: str = ""
    chinese: str = ""
    threshold: float | None = None


@dataclass(frozen=True)
class Tag:
    """One tag; `id` is its position in its vocabulary, aliases are other names of the same thing."""

    id: int
    name: str
    kind: Kind
    aliases: tuple[str, ...] = ()
    origin: Origin = Origin()


class Vocabulary:
    """An ordered list of tags in which every name and alias leads to exactly one tag.

    Names that differ only in case, spaces, underscores or hyphens are the same name. Raises
    ConfigError for tags that break this, for empty names and for names that the text format cannot
    hold (tabs, line ends, `|`, a `#` at the start).

    Examples:
        >>> vocabulary = Vocabulary.load()
        >>> couch = vocabulary.resolve("Sofa")
        >>> couch.name, couch.kind
        ('couch', 'object')
        >>> vocabulary.resolve("gryphon") is None
        True
        >>> mine = Vocabulary.from_text("dog\\tobject\\tpuppy|hound\\nred\\tattribute\\n", "mine.tsv")
        >>> [tag.name for tag in mine], mine.resolve("puppy").name
        (['dog', 'red'], 'dog')
    """

    _is_built_in = False

    def __init__(self, tags: Sequence[Tag]) -> None:
        self._tags = tuple(tags)
        self._names = _index(self._tags, [f"tag {tag.id}" for tag in self._tags])

    def __reduce__(self) -> tuple[Callable[[Any], "Vocabulary"], tuple[Any]]:
        # A job is pickled some ten times on its way, and most vocabularies are the built-in one.
        return (_installed, (self.digest,)) if self._is_built_in else (_unpacked, (self._packed,))

    @cached_property
    def _packed(self) -> bytes:
        return zlib.compress(pickle.dumps((self._tags, self._names)))

    @classmethod
    def load(cls, path: str | None = None) -> "Vocabulary":
        """Read a vocabulary file; None is the built-in vocabulary.

        The file is UTF-8, a tag a line, its `COLUMNS` between tabs; all but the name may be left out,
        kind is then `object`. An id that is written must be the number of the tag, from 0: a line put
        between others is found and cannot rename what follows. Empty lines and lines that start with
        `#` are skipped. Raises ConfigError with the file and the line for anything wrong in it.
        """
        if path is None:
            return _built_in()
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as exc:
            raise ConfigError(f"cannot read the vocabulary {path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise ConfigError(f"the vocabulary {path} is not UTF-8 text: {exc}") from exc
        return cls.from_text(text, path)

    @classmethod
    def from_text(cls, text: str, source: str) -> "Vocabulary":
        """As `load`, from the text itself; `source` is what error messages call it."""
        tags: list[Tag] = []
        places: list[str] = []
        # Not splitlines(): a line separator inside a name must not shift the line numbers.
        for number, line in enumerate(text.split("\n"), start=1):
            line = line.removesuffix("\r")
            if line.strip() and not line.startswith("#"):
                places.append(f"{source}:{number}")
                tags.append(parse_line(line, len(tags), places[-1]))
        if not tags:
            raise ConfigError(f"{source}: the vocabulary has no tags; write one name a line")
        vocabulary = cls.__new__(cls)
        vocabulary._tags = tuple(tags)
        vocabulary._names = _index(vocabulary._tags, places)
        return vocabulary

    def dump(self) -> str:
        """The text of the vocabulary, as `load` reads it."""
        return "\n".join([_HEADER, *map(_line, self._tags)]) + "\n"

    def resolve(self, name: str) -> Tag | None:
        """The tag of this name or alias, or None."""
        return self._names.get(normalize_name(name))

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over names, kinds, aliases and their order; not over the file's bytes."""
        return digest_of(self._tags)

    def __iter__(self) -> Iterator[Tag]:
        return iter(self._tags)

    def __len__(self) -> int:
        return len(self._tags)

    def __getitem__(self, tag_id: int) -> Tag:
        return self._tags[tag_id]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.resolve(name) is not None


@cache
def _built_in() -> Vocabulary:
    text = files("tagmill.tag_system").joinpath("vocabulary.tsv").read_text(encoding="utf-8")
    vocabulary = Vocabulary.from_text(text, "vocabulary.tsv")
    vocabulary._is_built_in = True
    return vocabulary


def _installed(digest: str) -> Vocabulary:
    """The built-in vocabulary, if it is the one that was pickled elsewhere."""
    vocabulary = _built_in()
    if vocabulary.digest != digest:
        raise ConfigError(
            "a worker and its driver have two built-in vocabularies; install one version of tagmill for both"
        )
    return vocabulary


@lru_cache(maxsize=2)
def _unpacked(packed: bytes) -> Vocabulary:
    vocabulary = Vocabulary.__new__(Vocabulary)
    vocabulary._tags, vocabulary._names = pickle.loads(zlib.decompress(packed))
    return vocabulary


def digest_of(tags: Iterable[Tag]) -> str:
    """The digest of a vocabulary of these tags, which need not make one."""
    content = [[tag.name, tag.kind, list(tag.aliases)] for tag in tags]
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def parse_line(line: str, tag_id: int, place: str) -> Tag:
    """The tag of one line of a vocabulary file; `place` is what error messages call it."""
    cells = [cell.strip() for cell in line.split("\t")]
    if len(cells) > len(COLUMNS):
        raise ConfigError(f"{place}: {len(cells)} columns, expected at most {', '.join(COLUMNS)}")
    row = dict(zip(COLUMNS, [*cells, *[""] * len(COLUMNS)], strict=False))
    if row["id"] and row["id"] != str(tag_id):
        raise ConfigError(f"{place}: the id is {row['id']!r} where {tag_id} is due; add tags at the end only")
    return Tag(
        id=tag_id,
        name=row["name"],
        kind=_kind(row["kind"] or "object", place),
        aliases=_list(row["aliases"]),
        origin=Origin(
            row["synset"],
            _list(row["hypernyms"]),
            _list(row["sources"]),
            row["rule"],
            row["chinese"],
            _threshold(row["threshold"], place),
        ),
    )


def _line(tag: Tag) -> str:
    origin = tag.origin
    cells = [origin.synset, "|".join(origin.hypernyms), "|".join(origin.sources), origin.rule, origin.chinese]
    cells.append("" if origin.threshold is None else f"{origin.threshold:g}")
    number = [str(tag.id)] if any(cells) else []
    return "\t".join([tag.name, tag.kind, "|".join(tag.aliases), *number, *cells]).rstrip("\t")


def _list(cell: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in cell.split("|")) if cell else ()


def _threshold(cell: str, place: str) -> float | None:
    try:
        value = float(cell) if cell else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value <= 1:
        raise ConfigError(f"{place}: the threshold {cell!r} is not a number from 0 to 1")
    return value


def _kind(text: str, place: str) -> Kind:
    for kind in KINDS:
        if kind == text:
            return kind
    raise ConfigError(f"{place}: unknown kind {text!r}, expected one of {', '.join(KINDS)}")


def _index(tags: Sequence[Tag], places: Sequence[str]) -> dict[str, Tag]:
    """Every normalised name and alias to its tag; `places` name the tags in error messages."""
    index: dict[str, Tag] = {}
    for position, (tag, place) in enumerate(zip(tags, places, strict=True)):
        if tag.id != position:
            raise ConfigError(f"{place}: ids must count from 0, expected {position}")
        _check_spelling(tag.name, place)
        other = index.setdefault(normalize_name(tag.name), tag)
        if other is not tag:
            raise ConfigError(f"{place}: {tag.name!r} repeats the name of {places[other.id]}")
    for tag, place in zip(tags, places, strict=True):
        for alias in tag.aliases:
            _check_spelling(alias, place)
            key = normalize_name(alias)
            if key in index:
                other = index[key]
                raise ConfigError(
                    f"{place}: the alias {alias!r} of {tag.name!r} is already a name of "
                    f"{other.name!r} ({places[other.id]})"
                )
            index[key] = tag
    return index


def _check_spelling(name: str, place: str) -> None:
    if not normalize_name(name):
        raise ConfigError(f"{place}: empty name or alias")
    if name != name.strip() or name.startswith("#") or re.search(r"[\t\n\r|]", name):
        raise ConfigError(f"{place}: {name!r} may not hold tabs, line ends, | or a # at the start")
