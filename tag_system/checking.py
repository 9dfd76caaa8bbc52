"""What is wrong with a vocabulary file, all of it at once, and how two vocabularies differ."""

from collections.abc import Iterator
from dataclasses import dataclass

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Tag, Vocabulary, normalize_name, parse_line


def problems(text: str, source: str) -> list[str]:
    """Every fault of a vocabulary's text, a line each; empty if `Vocabulary.from_text` takes it.

    Found are lines that cannot be read, ids out of order, empty names, repeated names, aliases that are
    names of other tags, aliases that two tags share, and tags that are aliases of each other.
    """
    found: list[str] = []
    lines = text.split("\n")
    tags: list[tuple[Tag, str]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            place = f"{source}:{number}"
            try:
                tags.append((parse_line(line.removesuffix("\r"), len(tags), place), place))
            except ConfigError as exc:
                found.append(str(exc))
                name = line.split("\t")[0].strip()
                tags.append((Tag(len(tags), name, "object"), place))
    found += _clashes(tags)
    if not found:
        try:
            Vocabulary.from_text(text, source)
        except ConfigError as exc:
            found.append(str(exc))
    return found


def _clashes(tags: list[tuple[Tag, str]]) -> Iterator[str]:
    names: dict[str, tuple[Tag, str]] = {}
    for tag, place in tags:
        key = normalize_name(tag.name)
        if not key:
            yield f"{place}: empty name"
        elif key in names:
            yield f"{place}: {tag.name!r} repeats the name of {names[key][1]}"
        else:
            names[key] = (tag, place)
    owners: dict[str, tuple[Tag, str]] = {}
    for tag, place in tags:
        for alias in tag.aliases:
            key = normalize_name(alias)
            if not key:
                yield f"{place}: {tag.name!r} has an empty alias"
            elif key in names:
                yield _shadow(tag, place, alias, *names[key])
            elif key in owners:
                yield f"{place}: the alias {alias!r} of {tag.name!r} is one of {owners[key][0].name!r} too"
            else:
                owners[key] = (tag, place)


def _shadow(tag: Tag, place: str, alias: str, other: Tag, other_place: str) -> str:
    if other.id != tag.id and normalize_name(tag.name) in map(normalize_name, other.aliases):
        return f"{place}: {tag.name!r} and {other.name!r} ({other_place}) are aliases of each other"
    return f"{place}: the alias {alias!r} of {tag.name!r} shadows the name of {other_place}"


@dataclass(frozen=True)
class Difference:
    """How a vocabulary differs from an older one, by names; `moved` are tags whose id is another one now,
    `changed` tags whose kind or aliases are. Ids are append-only if `removed` and `moved` are empty.
    """

    added: list[str]
    removed: list[str]
    moved: list[str]
    changed: list[str]

    @property
    def append_only(self) -> bool:
        """Whether data bound to the older ids still reads the same under the newer ones."""
        return not self.removed and not self.moved


def difference(old: Vocabulary, new: Vocabulary) -> Difference:
    """What changed from `old` to `new`."""
    before = {normalize_name(tag.name): tag for tag in old}
    after = {normalize_name(tag.name): tag for tag in new}
    kept = [(before[key], tag) for key, tag in after.items() if key in before]
    return Difference(
        added=[tag.name for key, tag in after.items() if key not in before],
        removed=[tag.name for key, tag in before.items() if key not in after],
        moved=[f"{tag.name}: id {old_tag.id} -> {tag.id}" for old_tag, tag in kept if old_tag.id != tag.id],
        changed=[line for old_tag, tag in kept for line in _changes(old_tag, tag)],
    )


def _changes(old: Tag, new: Tag) -> Iterator[str]:
    if old.kind != new.kind:
        yield f"{new.name}: {old.kind} -> {new.kind}"
    removed = [f"-{alias}" for alias in old.aliases if alias not in new.aliases]
    added = [f"+{alias}" for alias in new.aliases if alias not in old.aliases]
    if removed or added:
        yield f"{new.name}: aliases {' '.join([*removed, *added])}"
