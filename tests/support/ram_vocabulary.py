"""RAM's official list as a vocabulary, with kinds and aliases by the annotators' rules."""

from collections.abc import Iterator
from pathlib import Path

from tagmill.tag_system.vocabulary import Tag, Vocabulary, normalize_name

RULES = Path(__file__).parents[1] / "tag_system/captions/ram_names.tsv"


def ram_vocabulary(names: Path) -> Vocabulary:
    """The names of the file, one a line, with their ids."""
    lines = names.read_text(encoding="utf-8").split("\n")
    rules = {tag.name: tag for tag in Vocabulary.load(str(RULES))}
    known = Vocabulary.load()
    listed = {normalize_name(line) for line in lines}
    taken = listed | {normalize_name(alias) for tag in rules.values() for alias in tag.aliases}
    tags: list[Tag] = []
    for name in lines:
        twin = any(normalize_name(tag.name) == normalize_name(name) for tag in tags[-3:])
        tag = rules.get(name) or _lent(name, known, taken)
        aliases = tuple(alias for alias in tag.aliases if normalize_name(alias) not in listed)
        tags.append(Tag(len(tags), f"{name} (2)" if twin else name, tag.kind, aliases))
    return Vocabulary(tags)


def _lent(name: str, known: Vocabulary, taken: set[str]) -> Tag:
    found = known.resolve(name)
    if found is None:
        return Tag(0, name, "object")
    aliases = tuple(_free(found, name, taken))
    taken.update(aliases)
    return Tag(0, name, found.kind, aliases)


def _free(found: Tag, name: str, taken: set[str]) -> Iterator[str]:
    """Not those of a tag that the list has under its own name."""
    if normalize_name(found.name) == normalize_name(name) or normalize_name(found.name) not in taken:
        names = dict.fromkeys(map(normalize_name, (found.name, *found.aliases)))
        yield from (one for one in names if one not in taken)
