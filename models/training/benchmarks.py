"""The official benchmark lists: which images there are, and which tags of a list each of them shows.

A list of tags has one a line: names (OpenImages-common and -rare, HICO, ImageNet-multi), or numbers of a
model's classes, from 0 (Tag2Text, whose names repeat). A list of annotations has an image a line:

    test/0000c64e1253d68f,car,tree      OpenImages: names, commas between them
    test/0000c64e1253d68f,2317,1141     OpenImages for Tag2Text: numbers of classes
    HICO_test2015_00000002.jpg,131 139  HICO and ImageNet-multi: places in the list of tags, from 0
    test/00229645efaf204f               an image without any of the tags

An image that lists nothing counts as negative for all tags, as in the official evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import lines
from tagmill.tag_system.vocabulary import normalize_name


@dataclass(frozen=True)
class Benchmark:
    """`tags` as the list has them; `images` gives the places of each image's tags, by path as listed."""

    tags: tuple[str, ...]
    images: Mapping[str, tuple[int, ...]]


def read(annotations: Path, tags: Path) -> Benchmark:
    """Read the two lists of a benchmark.

    Raises ConfigError that names the file, and the line of what is wrong there: an image that stands twice,
    a tag that the list of tags does not have.
    """
    names = read_tags(tags)
    rows = [(number, *line.partition(",")[::2]) for number, line in enumerate(_lines(annotations), 1) if line]
    labels, places = _labels(names, [listed for _, _, listed in rows])
    images: dict[str, tuple[int, ...]] = {}
    for (number, image, _), shown in zip(rows, labels, strict=True):
        if image in images:
            raise ConfigError(f"{annotations}:{number}: {image} is listed twice: leave one line")
        try:
            images[image] = tuple(place for label in shown for place in places[label])
        except KeyError as error:
            raise ConfigError(
                f"{annotations}:{number}: {error.args[0]!r} is not one of the {len(names)} tags in {tags}: "
                "give the list of tags that belongs to these annotations"
            ) from None
    if not images:
        raise ConfigError(f"{annotations} lists no image: write a line for each, its path and tags")
    return Benchmark(names, images)


def read_tags(path: Path) -> tuple[str, ...]:
    """Read a list of tags, one a line. Raises ConfigError."""
    names = _lines(path)
    if not names or "" in names:
        line = names.index("") + 1 if "" in names else 1
        raise ConfigError(f"{path}:{line} is empty: it should be a list of tags, one a line")
    return tuple(names)


def columns(tags: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Find the model's class for each tag: by number if all tags are numbers, else by name.

    Raises ConfigError for tags that the model does not have, or has more than once.
    """
    if all(tag.isdecimal() for tag in tags):
        numbers = [int(tag) for tag in tags]
        if max(numbers) >= len(classes):
            raise ConfigError(
                f"the list of tags names class {max(numbers)}, the model has {len(classes)}: give "
                "the list that belongs to the model"
            )
        return numbers
    places_of: dict[str, list[int]] = {}
    for place, name in enumerate(classes):
        places_of.setdefault(normalize_name(name), []).append(place)
    found = [places_of.get(normalize_name(tag), []) for tag in tags]
    missing = [tag for tag, places in zip(tags, found, strict=True) if not places]
    if missing:
        raise ConfigError(
            f"{len(missing)} of the {len(tags)} tags are not classes of the model "
            f"({', '.join(missing[:3])}): "
            "name their label embeddings by --embeddings"
        )
    twice = [tag for tag, places in zip(tags, found, strict=True) if len(places) > 1]
    if twice:
        raise ConfigError(
            f"the model has {twice[0]!r} more than once: give a list of numbers of classes in place of names"
        )
    return [places[0] for places in found]


def _labels(names: Sequence[str], lines: Sequence[str]) -> tuple[list[list[str]], dict[str, list[int]]]:
    """Take the labels of all lines apart, and say which places of the list each label stands for.

    A name that is listed twice stands for both of its places. Only numbers have spaces between them.
    """
    numbers = [line.replace(",", " ").split() for line in lines]
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    if not all(label.isdecimal() for line in numbers for label in line):
        return [[label.strip() for label in line.split(",") if label.strip()] for line in lines], places
    if all(name.isdecimal() for name in names):
        return numbers, places
    return numbers, {str(place): [place] for place in range(len(names))}


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in lines(path.read_text(encoding="utf-8-sig"))]
    except OSError as error:
        raise ConfigError(f"cannot read the list {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the list {path} is not UTF-8 text") from error
