"""Labels that lie beside the images: a truth in Parquet, or a benchmark's list, found by an image's key."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tagmill.models.training.benchmarks import Benchmark
from tagmill.models.training.scores import NEGATIVE, POSITIVE, UNKNOWN, Labels
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.truth import read_images

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl")
"""Endings of image names that a key does not have to have, in any case of letters."""

Name = Callable[[str], str]
"""Brings names of one tag (aliases, other letters) to one form."""


@dataclass
class KeyedLabels:
    """Which of so many tags each image shows, by the image's key.

    Of an image in `absent` the tags there are negative and others unknown; of any other image all other tags
    are negative. `kinds` by tag, as far as they are known; `unmapped` counts labels that no tag stands for.
    `folders` says that the labels' keys are paths, whose folders (`test/`) are not sources. `used` are the
    images that were asked for, with the key that each was asked by. Raises ConfigError for two keys that
    differ in their extension alone.
    """

    images: Mapping[str, Sequence[int]]
    tags: int
    kinds: Mapping[str, str] = field(default_factory=dict)
    unmapped: Counter[str] = field(default_factory=Counter)
    absent: Mapping[str, Sequence[int]] = field(default_factory=dict)
    folders: bool = False
    used: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names, self._last = _by_stem(self.images), _by_last_part(self.images)

    def find(self, key: str) -> Labels | None:
        """Give the labels [tags] of an image, None if there are none.

        A shard's key is `<source>/<key in the source>`: where the whole key is not known, what follows a
        slash is tried, the longest first; at last the labels' keys by what follows their last slash. If that
        may be a source, this key may have none: an image of another source has other labels, whatever its
        name there. Extensions of images do not matter. Raises ConfigError if another image had these labels
        before.
        """
        parts = stem(key).split("/")
        tried = ("/".join(parts[start:]) for start in range(len(parts)))
        image = next((self._names[name] for name in tried if name in self._names), None)
        if image is None and (self.folders or len(parts) == 1):
            image = self._last.get(parts[-1])
        if image is None:
            return None
        if image in self.used:
            raise ConfigError(
                f"the labels of {image} fit two images, {self.used[image]} and {key}: give labels by whole "
                "keys, <source>/<key in the source>, and each image once"
            )
        self.used[image] = key
        labels = np.full(self.tags, UNKNOWN if image in self.absent else NEGATIVE, np.uint8)
        labels[list(self.absent.get(image, ()))] = NEGATIVE
        labels[list(self.images[image])] = POSITIVE
        return labels

    @property
    def unused(self) -> int:
        """Count the images that were not asked for."""
        return len(self.images) - len(self.used)


def of_benchmark(benchmark: Benchmark) -> KeyedLabels:
    """Take the labels of an official list."""
    return KeyedLabels(benchmark.images, len(benchmark.tags), folders=True)


def read_truth(path: Path, names: Sequence[str], name: Name) -> KeyedLabels:
    """Read a truth, as `tag_system.truth` has it.

    Raises ConfigError for a file that is not one, and if no label is one of the names.
    """
    places: dict[str, list[int]] = {}
    for place, known in enumerate(names):
        places.setdefault(name(known), []).append(place)
    unmapped: Counter[str] = Counter()
    images: dict[str, list[int]] = {}
    absent: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}
    for image in read_images(str(path)):
        kinds |= zip(map(name, image.tags), image.kinds, strict=False)
        unmapped.update(tag for tag in image.tags if name(tag) not in places)
        images[image.key] = [place for tag in image.tags for place in places.get(name(tag), ())]
        if image.absent is not None:
            absent[image.key] = [place for tag in image.absent for place in places.get(name(tag), ())]
    if not any(images.values()):
        raise ConfigError(f"{path} labels no class of the model: give labels of its tags")
    known_kinds = {tag: kinds[name(tag)] for tag in names if name(tag) in kinds}
    return KeyedLabels(images, len(names), known_kinds, unmapped, absent=absent)


def stem(name: str) -> str:
    """Cut an image's extension off."""
    return next((name[: -len(end)] for end in EXTENSIONS if name.lower().endswith(end)), name)


def _by_stem(images: Iterable[str]) -> dict[str, str]:
    """Find images by their name without extension."""
    found: dict[str, str] = {}
    for image in images:
        other = found.setdefault(stem(image), image)
        if other != image:
            raise ConfigError(f"{other} and {image} are labels of one image, as extensions do not count")
    return found


def _by_last_part(images: Iterable[str]) -> dict[str, str]:
    """Find images by the last part of their name, where no other has the same."""
    last = Counter(stem(image).rsplit("/", 1)[-1] for image in images)
    return {part: image for image in images if last[part := stem(image).rsplit("/", 1)[-1]] == 1}
