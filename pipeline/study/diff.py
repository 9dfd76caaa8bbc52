"""What differs between two sets of decided images: why, which images, which verdicts, and which is right.

Images are matched by key, and are common if the digests of their bytes are equal too. Chunks of one name are
compared at once; what finds no match there waits on disk, so that memory does not grow with the images.
"""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.study.causes import changes
from tagmill.pipeline.study.decided import IMAGES, TAGS, Chunk, Decided
from tagmill.pipeline.study.evaluation import Truth
from tagmill.pipeline.study.moved import (
    ABSENT,
    Cell,
    Decisions,
    MovedSample,
    MovedTag,
    OddImages,
    Policies,
    is_close,
    is_kept,
    truth_of,
)
from tagmill.tag_system.core import files
from tagmill.transforms.formats.spill import Spill

NOISE = 0.05
"""From this p value on, a change of a tag may be chance."""

EXACT = 1_000
"""Most flips for which McNemar's test is computed exactly."""

AT_ONCE = 1_000
"""Images that waited on disk and are compared together."""

T = TypeVar("T")


@dataclass
class ImageCounts:
    """How many images there are on each side and in common; which came, went, or are other bytes by now.

    `repeated` counts images whose key another one of their side has: they are left out.
    """

    a: int = 0
    b: int = 0
    common: int = 0
    came: int = 0
    went: int = 0
    changed: int = 0
    repeated: int = 0
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class TagMoves:
    """A tag on common images: how often it is kept on each side, how often on one side alone."""

    a: int = 0
    b: int = 0
    lost: int = 0
    won: int = 0

    @property
    def p(self) -> float:
        """How likely chance alone moves the tag as one-sidedly."""
        return mcnemar(self.lost, self.won)

    @property
    def is_noise(self) -> bool:
        """Tell whether the change is within the noise of its counts."""
        return self.p >= NOISE


@dataclass
class Rights:
    """Of the tags that one side alone keeps and of which the truth knows: how often each side is right."""

    a: int = 0
    b: int = 0
    unknown: int = 0

    @property
    def p(self) -> float:
        """How likely chance alone prefers one side as much."""
        return mcnemar(self.a, self.b)

    @property
    def is_noise(self) -> bool:
        """Tell whether the preference is within the noise of its counts."""
        return self.p >= NOISE

    def said(self) -> str:
        """Say which side the truth prefers, or that it prefers none."""
        total = self.a + self.b
        said = (
            f"of {total:,} tags that one side alone keeps, A is right about {self.a:,}, "
            f"B about {self.b:,} (McNemar p = {self.p:.2g}): "
        )
        better = "A" if self.a > self.b else "B"
        said += "within the noise" if self.is_noise else f"{better} is right more often"
        return said + (f"; the truth does not know {self.unknown:,} more" if self.unknown else "")


@dataclass
class DiffFindings:
    """What differs between the sides A and B.

    Attributes:
        causes: What made them, where it differs: name -> value in A and in B.
        images: The images.
        cells: Tags of common images by their verdicts and rules, equal ones too.
        close: Of the tags in a cell with two verdicts, those with a deciding score within `CLOSE`.
        examples: Some tags of each cell with two, by chance.
        tags: What became of each tag.
        rights: Which side the truth gives right; None without a truth.
    """

    causes: dict[str, tuple[object, object]]
    images: ImageCounts = field(default_factory=ImageCounts)
    cells: Counter[Cell] = field(default_factory=Counter)
    close: Counter[Cell] = field(default_factory=Counter)
    examples: Mapping[Cell, Sequence[MovedTag]] = field(default_factory=dict)
    tags: dict[str, TagMoves] = field(default_factory=lambda: defaultdict(TagMoves))
    rights: Rights | None = None

    @property
    def all_tags(self) -> TagMoves:
        """Sum up what became of all tags."""
        counts = [(one.a, one.b, one.lost, one.won) for one in self.tags.values()]
        return TagMoves(*map(sum, zip(*counts, strict=True)))

    def by_moves(self) -> list[tuple[str, TagMoves]]:
        """Give all tags, those that moved most first."""
        return sorted(self.tags.items(), key=lambda item: (-item[1].lost - item[1].won, item[0]))

    def shortened(self, most: int) -> "DiffFindings":
        """Give the same with so many examples of each kind at most."""
        keys = {name: some[:most] for name, some in self.images.keys.items()}
        examples = {cell: some[:most] for cell, some in self.examples.items()}
        return replace(self, images=replace(self.images, keys=keys), examples=examples)

    @property
    def is_same(self) -> bool:
        """Tell whether both have the same images with the same verdicts, by the same rules."""
        images = self.images
        moved = any(a != b for a, b in self.cells)
        return not (images.came or images.went or images.changed or moved)


def mcnemar(one: int, other: int) -> float:
    """Give the p value of McNemar's test of two counts of flips: exact, or the normal one of many."""
    total, least = one + other, min(one, other)
    if total > EXACT:
        z = max(0, abs(one - other) - 1) / math.sqrt(total)
        return 2 * (1 - NormalDist().cdf(z))
    return min(1.0, 2 * sum(math.comb(total, count) for count in range(least + 1)) / 2**total)


def differences(a: Decided, b: Decided, *, examples: int = 0, truth: Truth | None = None) -> DiffFindings:
    """Compare two sides, chunk by chunk.

    `examples` is how many are given of each kind of difference, chosen by the digests of their images, so
    that they do not depend on how images are dealt to parts. Raises DamageError.
    """
    found = DiffFindings(_causes(a, b), rights=Rights() if truth else None)
    comparison = _Comparison(found, (a.policy, b.policy), truth, MovedSample(examples), OddImages(examples))
    both = set(a.names) & set(b.names)
    with Spill() as spill, ThreadPoolExecutor(files.THREADS) as pool:
        waiting = _Waiting(spill)
        for names in _batches((name for name in a.names if name in both), files.THREADS):
            for one, other in pool.map(lambda name: (a.read(name), b.read(name)), names):
                comparison.compare(one, other, waiting)
        for side, decided in enumerate((a, b)):
            for names in _batches((name for name in decided.names if name not in both), files.THREADS):
                for chunk in pool.map(decided.read, names):
                    comparison.count(side, chunk)
                    waiting.put(side, chunk)
        for one, other in waiting.pairs():
            comparison.compare_matched(*_unique(one, other, found.images))
    found.examples = comparison.moved.chosen(comparison.policies, truth)
    found.images.keys = comparison.odd.keys()
    return found


def _batches(values: Iterable[T], count: int) -> Iterator[list[T]]:
    """Give values so many at a time."""
    remaining = iter(values)
    while some := list(itertools.islice(remaining, count)):
        yield some


def _causes(a: Decided, b: Decided) -> dict[str, tuple[object, object]]:
    """Name what made the two sides otherwise."""
    return changes(a.made_by, b.made_by, a.unknown | b.unknown) | _other_libraries(a, b)


def _other_libraries(a: Decided, b: Decided) -> dict[str, tuple[object, object]]:
    """Name the libraries of other versions, with the stages that ran with them."""
    found: dict[str, tuple[object, object]] = {}
    stages: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name in sorted(a.libraries.keys() & b.libraries.keys()):
        was, now = str(a.libraries[name]), str(b.libraries[name])
        if was != now and name.partition(".")[0] not in a.unknown | b.unknown:
            stage, _, library = name.partition(".")
            stages[library, was, now].append(stage)
    for (library, was, now), of in stages.items():
        found[f"{library} ({', '.join(of)})"] = (was, now)
    return found


class _Waiting:
    """Images without a match so far, on disk until all are there."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._places = itertools.count()  # each its own: so the spill keeps those of a key together

    def put(self, side: int, chunk: Chunk) -> None:
        """Have the images of a side's chunk wait."""
        rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for row in zip(*(column.to_pylist() for column in chunk.tags.columns), strict=True):
            rows[row[0]].append(row)
        for image in zip(*(column.to_pylist() for column in chunk.images.columns), strict=True):
            self._spill.add(image[0], next(self._places), json.dumps([side, image, rows.get(image[0], [])]))

    def pairs(self) -> Iterator[tuple[Chunk, Chunk]]:
        """Give what waited of both sides, some keys at a time."""
        for groups in _batches(self._spill.groups(limit=1 << 40), AT_ONCE):
            images: tuple[list[Any], ...] = ([], [])
            tags: tuple[list[Any], ...] = ([], [])
            for _, texts in groups:
                for side, image, rows in map(json.loads, texts or ()):
                    images[side].append(image)
                    tags[side].extend(rows)
            one, other = (Chunk(_table(images[side], IMAGES), _table(tags[side], TAGS)) for side in (0, 1))
            yield one, other


def _table(rows: list[Any], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    return pa.table(
        [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)], schema=schema
    )


def _unique(one: Chunk, other: Chunk, images: ImageCounts) -> tuple[Chunk, Chunk]:
    """Leave out images whose key another one of their side has."""
    keys: Counter[str] = Counter()
    for chunk in (one, other):
        times = Counter(chunk.images["key"].to_pylist())
        keys.update({key: count for key, count in times.items() if count > 1})
    images.repeated += keys.total()
    return _without(one, keys), _without(other, keys)


def _without(chunk: Chunk, keys: Mapping[str, int]) -> Chunk:
    if not keys:
        return chunk
    listed = pa.array(list(keys), pa.string())
    return Chunk(
        *(table.filter(pc.invert(pc.is_in(table["key"], listed))) for table in (chunk.images, chunk.tags))
    )


@dataclass
class _Comparison:
    """Compares chunks, and adds to what was found."""

    found: DiffFindings
    policies: Policies
    truth: Truth | None
    moved: MovedSample
    odd: OddImages

    def count(self, side: int, chunk: Chunk) -> None:
        """Count the images of one side."""
        if side:
            self.found.images.b += chunk.images.num_rows
        else:
            self.found.images.a += chunk.images.num_rows

    def compare(self, one: Chunk, other: Chunk, waiting: _Waiting) -> None:
        """Compare the images of two chunks that have one key; the others wait."""
        self.count(0, one)
        self.count(1, other)
        one, other = _unique(one, other, self.found.images)
        both = pc.is_in(one.images["key"], other.images["key"])
        keys = one.images["key"].filter(both)
        for side, chunk in enumerate((one, other)):
            if chunk.images.num_rows > len(keys):
                waiting.put(side, _without(chunk, dict.fromkeys(keys.to_pylist(), 1)))
        self.compare_matched(*(_only(chunk, keys) for chunk in (one, other)))

    def compare_matched(self, one: Chunk, other: Chunk) -> None:
        """Compare images of which no other part has the keys."""
        place = pc.index_in(one.images["key"], other.images["key"])
        digests = other.images["sha256"].take(place)
        images = self.found.images
        equal = pc.fill_null(pc.equal(one.images["sha256"], digests), False)
        is_new = pc.invert(pc.is_in(other.images["key"], one.images["key"]))
        went = one.images.filter(pc.is_null(place))
        came = other.images.filter(is_new)
        changed = one.images.filter(pc.and_(pc.is_valid(place), pc.invert(equal)))
        images.came += came.num_rows
        images.went += went.num_rows
        images.changed += changed.num_rows
        for name, some in {"came": came, "went": went, "changed": changed}.items():
            self.odd.add(name, some)
        common = one.images["key"].filter(equal)
        images.common += len(common)
        if len(common):
            self._compare_tags(*(_only(chunk, common) for chunk in (one, other)))

    def _compare_tags(self, one: Chunk, other: Chunk) -> None:
        """Compare the tags of common images."""
        a, b = one.tags, other.tags
        pairs_a, pairs_b = (
            pc.binary_join_element_wise(table["key"], table["tag"], "\0").combine_chunks() for table in (a, b)
        )
        alone = pc.invert(pc.is_in(pairs_b, pairs_a))
        place = pc.index_in(pairs_a, pairs_b)
        every = pa.table(
            {
                "key": pa.chunked_array([*a["key"].chunks, *b["key"].filter(alone).chunks], pa.string()),
                "tag": pa.chunked_array([*a["tag"].chunks, *b["tag"].filter(alone).chunks], pa.string()),
                "a": pa.array([*range(a.num_rows), *[None] * _number(alone)], pa.int32()),
                "b": pa.array([*place.to_pylist(), *pc.indices_nonzero(alone).to_pylist()], pa.int32()),
            }
        )
        for name, table in {"a": a, "b": b}.items():
            state = pc.binary_join_element_wise(table["verdict"], table["rule"], "/").take(every[name])
            every = every.append_column(f"{name}_state", pc.fill_null(state, ABSENT))
        counted = every.group_by(["tag", "a_state", "b_state"], use_threads=False).aggregate(
            [([], "count_all")]
        )
        for row in counted.to_pylist():
            self._count_tag(row["tag"], (row["a_state"], row["b_state"]), row["count_all"])
        moved = every.filter(pc.not_equal(every["a_state"], every["b_state"]))
        self.moved.add(moved, one, other)
        sides = (a.take(moved["a"]).to_pylist(), b.take(moved["b"]).to_pylist())
        for row, was, now in zip(moved.to_pylist(), *sides, strict=True):
            self._look_at(row, (was if was["rule"] else None, now if now["rule"] else None))

    def _count_tag(self, tag: str, cell: Cell, count: int) -> None:
        self.found.cells[cell] += count
        was, now = map(is_kept, cell)
        moves = self.found.tags[tag]
        moves.a += was * count
        moves.b += now * count
        moves.lost += (was and not now) * count
        moves.won += (now and not was) * count

    def _look_at(self, row: Mapping[str, Any], decisions: Decisions) -> None:
        """Look at a tag of an image with two verdicts or rules."""
        cell = row["a_state"], row["b_state"]
        self.found.close[cell] += is_close(cell, decisions, self.policies)
        was, now = map(is_kept, cell)
        if self.found.rights and was != now:
            is_true = truth_of(self.truth, row["key"], row["tag"])
            self.found.rights.unknown += is_true is None
            self.found.rights.a += was == is_true
            self.found.rights.b += now == is_true


def _only(chunk: Chunk, keys: pa.ChunkedArray) -> Chunk:
    return Chunk(*(table.filter(pc.is_in(table["key"], keys)) for table in (chunk.images, chunk.tags)))


def _number(mask: pa.Array) -> int:
    return pc.sum(mask).as_py() or 0


def flips(found: DiffFindings) -> Iterator[tuple[Cell, int]]:
    """Give the cells whose two sides differ with their counts, the largest first."""
    for cell, count in sorted(found.cells.items(), key=lambda item: (-item[1], item[0])):
        if cell[0] != cell[1]:
            yield cell, count
