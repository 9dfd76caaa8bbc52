"""Takes what is excluded out of the parts of ingest: rows, dead letters, and copies of their images.

Stages after ingest follow: a part that holds rows that ingest does not have is rewritten, see `stock`.
What the run remembers of the entries, and of the images that keys and sources led to, are hashes.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.sources import FoundSource
from tagmill.tag_system.core import files
from tagmill.transforms import bitmaps, image_copies, parquet, parts
from tagmill.transforms.exclusion import IMAGE, KEY, SOURCE, Exclusion, entry_hash
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.rewrite import read_dead, rewrite

_log = logging.getLogger(__name__)

NOTE = "excluded"
"""Where the record of ingest, and a part's notes, speak of what was taken out."""


@dataclass
class Remembered:
    """What a run remembers of what was excluded, all of it hashed by `entry_hash`.

    Attributes:
        entries: The entries of the list.
        matched: Those of them that named something.
        images: The images that a key or a source led to: entry and image.
    """

    entries: set[str] = field(default_factory=set)
    matched: set[str] = field(default_factory=set)
    images: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def read(cls, *notes: Mapping[str, Any]) -> "Remembered":
        """Read what records say of it, the newest first."""
        memory = cls()
        for note in reversed([note for note in notes if note]):
            memory.entries = set(note["entries"])
            memory.matched |= set(note["matched"])
            memory.images |= {(entry, image) for entry, image in note["images"]}
        return memory

    def limited_to(self, exclusion: Exclusion) -> "Remembered":
        """Forget what is no longer excluded, and take in what is."""
        entries = exclusion.hashes()
        images = {(entry, image) for entry, image in self.images if entry in entries}
        return Remembered(entries, self.matched & entries, images)

    def to_json(self) -> dict[str, Any]:
        """Write it for a record."""
        return {
            "entries": sorted(self.entries),
            "matched": sorted(self.matched),
            "images": sorted(map(list, self.images)),
        }


@dataclass(frozen=True)
class _Hits:
    """What is excluded of a part: the rows; what the entries were; and images that must go elsewhere too."""

    rows: int = 0
    matched: frozenset[str] = frozenset()
    images: frozenset[tuple[str, str]] = frozenset()


class Takedown:
    """Takes what is excluded out of the parts that lie in a folder of ingest.

    Args:
        stage: Ingest, with what is excluded.
        folder: Folder of the generation.
        memory: What the run remembers.
    """

    def __init__(self, stage: Ingest, folder: str, memory: Remembered) -> None:
        self._stage = stage
        self._folder = folder
        self._exclusion = stage.exclusion
        self._sources: dict[str, str] = {}
        self.memory = memory.limited_to(stage.exclusion)

    def run(self, sources: Mapping[str, FoundSource], forget: Callable[[set[str]], None]) -> dict[str, Any]:
        """Rewrite the parts that hold something that is excluded.

        Args:
            sources: The source of every part, by the part's name.
            forget: Takes parts out of the record before they change.

        Returns:
            The notes for the record.
        """
        excluded = self._exclusion.sources
        self._sources = {name: source.uri for name, source in sources.items() if source.uri in excluded}
        images = self._exclusion.images
        hits = self._scan(sources, images)
        led_to = frozenset(image for found in hits.values() for _, image in found.images) - images
        if led_to:  # by a key or a source: their copies lie anywhere
            for name, found in self._scan(sources, images | led_to).items():
                hits[name] = replace(hits.get(name, found), rows=hits.get(name, found).rows | found.rows)
        forget(set(hits))
        with ThreadPoolExecutor(files.THREADS) as pool:
            list(pool.map(lambda pair: self._rewrite(pair[0], pair[1].rows), hits.items()))
        for found in hits.values():
            self.memory.matched |= found.matched
            self.memory.images |= {(entry, entry_hash(IMAGE, image)) for entry, image in found.images}
        self._report(sum(found.rows.bit_count() for found in hits.values()), len(hits))
        return {NOTE: self.memory.to_json()}

    def _scan(self, names: Iterable[str], images: frozenset[str]) -> dict[str, _Hits]:
        known = {image for _, image in self.memory.images}
        with ThreadPoolExecutor(files.THREADS) as pool:
            listed = list(names)
            found = pool.map(lambda name: self._look(name, images, known), listed)
            return {name: hits for name, hits in zip(listed, found, strict=True) if hits.rows}

    def _look(self, name: str, images: frozenset[str], known: set[str]) -> _Hits:
        """Find what is excluded of one part."""
        part = parts.read_part(parts.part_uri(self._folder, name), ["row", "key", "sha256"])
        rows = part.table
        if dead := _dead_keys(self._folder, name):
            rows = pa.concat_tables([rows, *dead], promote_options="default")
        if uri := self._sources.get(name):
            entry = entry_hash(SOURCE, uri)
            every = frozenset((entry, image) for image in rows["sha256"].to_pylist() if image)
            return _Hits(part.header.rows, frozenset({entry}), every)
        by_image = pc.is_in(rows["sha256"], pa.array(images, pa.string()))
        by_key = pc.is_in(rows["key"], pa.array(self._exclusion.keys, pa.string()))
        if known:
            copies = [
                image is not None and entry_hash(IMAGE, image) in known
                for image in rows["sha256"].to_pylist()
            ]
            by_image = pc.or_(by_image, pa.array(copies, pa.bool_()))
        hit = rows.filter(pc.or_(by_image, by_key)).to_pylist()
        keys = [one for one in hit if one["key"] in self._exclusion.keys]
        matched = {entry_hash(KEY, one["key"]) for one in keys}
        matched |= {
            entry_hash(IMAGE, one["sha256"]) for one in hit if one["sha256"] in self._exclusion.images
        }
        led_to = {(entry_hash(KEY, one["key"]), one["sha256"]) for one in keys if one["sha256"]}
        return _Hits(bitmaps.of(one["row"] for one in hit), frozenset(matched), frozenset(led_to))

    def _rewrite(self, name: str, gone: int) -> None:
        part = parts.read_part(parts.part_uri(self._folder, name))
        dead = read_dead(self._folder, part.header)
        notes = {NOTE: part.header.notes.get(NOTE, 0) + (gone & part.header.rows).bit_count()}
        beside = {}
        if "images" in part.header.files:
            rows = [one for one in part.table.select(["row", "image"]).to_pylist() if gone >> one["row"] & 1]
            beside["images"] = image_copies.blank(self._folder, name, (one["image"] for one in rows))
        rewrite(self._stage, part, dead, gone, notes, beside).replace(self._folder)

    def _report(self, examples: int, changed: int) -> None:
        if examples:
            _log.warning(
                "ingest: %d examples that are excluded were taken out of %d parts; tagmill gc RUN removes "
                "what is left of them",
                examples,
                changed,
            )
        if nothing := len(self.memory.entries - self.memory.matched):
            _log.warning(
                "exclude: %d of %d entries name nothing that the inputs have",
                nothing,
                len(self.memory.entries),
            )


def _dead_keys(folder: str, name: str) -> list[pa.Table]:
    """Read rows and keys of a part's dead letters, if there are any."""
    uri = parts.dead_uri(folder, name)
    return [parquet.read_table(uri, ["row", "key"])] if files.exists(uri) else []
