"""One sample, from its place in a shard to tensors; runs in the loader's workers."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from tagmill.models.base import Floats
from tagmill.models.training.datasets import StoredFeatures
from tagmill.models.training.ranges import Range, RangeReader
from tagmill.models.training.targets import ClassMap, Decisions, MarkPolicy, TagChoice, Target
from tagmill.models.training.views import View
from tagmill.tag_system.core import pixels
from tagmill.tag_system.core.errors import DamageError, DataError, Reason
from tagmill.tag_system.shard_contract import Sample, SampleCaption, parse_sample, parse_verdicts

MAX_BYTES = 256 << 20
"""A sample that its index claims to be larger is not read: the claim alone must not fill the memory."""


class Address(NamedTuple):
    """Where a sample is stored, and which of its turns in the training this is.

    Attributes:
        dataset: Index of the dataset.
        shard: Index of the shard in the dataset.
        image: Offset of the image in the shard, in bytes.
        image_size: Its size in bytes.
        record: Offset of the JSON record in the shard, in bytes.
        record_size: Its size in bytes.
        turn: Which of its showings this is: no two are of one number.
        row: Index of the sample in the shard.
    """

    dataset: int
    shard: int
    image: int
    image_size: int
    record: int
    record_size: int
    turn: int
    row: int


@dataclass(frozen=True)
class TrainingExample:
    """One sample; `image` is float32 [3, height, width], `features` float32 [dimension], or empty."""

    dataset: str
    key: str
    image: Tensor
    target: Target
    caption: str
    features: Floats


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be used, and the reason; `place` is the shard and the byte where it begins."""

    place: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Failed:
    """What ends the training; torch would raise what a worker raises with its traceback for a message."""

    error: Exception


@dataclass(frozen=True)
class DatasetInfo:
    """What the workers need of a dataset: name, tars, features, and how tags and marks become targets."""

    name: str
    shards: tuple[str, ...]
    classes: ClassMap
    choice: TagChoice | None
    features: StoredFeatures | None = None
    marks: MarkPolicy = field(default_factory=MarkPolicy)


class Examples:
    """Reads, decodes and augments samples by their addresses: a map-style dataset for torch's DataLoader.

    An address of None asks for nothing, which pads a batch. All chance is keyed by seed, dataset, key
    and turn: not by worker, rank or what was read before. The caption is drawn in each turn from
    all that a sample has; empty if it has none. `copies`: see `RangeReader`.
    """

    def __init__(
        self,
        origins: Sequence[DatasetInfo],
        view: View,
        *,
        seed: int,
        max_pixels: int,
        max_bytes: int = pixels.MAX_BYTES,
        decisions: Decisions | None = None,
        copies: Mapping[str, str] | None = None,
    ) -> None:
        self.origins, self._view = tuple(origins), view
        self._seed, self._decisions = seed, decisions
        self._max_pixels, self._max_bytes = max_pixels, max_bytes
        self._reader = RangeReader(copies)

    def __getitems__(
        self, addresses: Sequence[Address | None]
    ) -> "list[TrainingExample | Skipped | None] | Failed":
        """Make the samples of a batch, or say why a shard cannot be read at all."""
        try:
            return self._samples(addresses)
        except (DamageError, OSError) as error:
            return Failed(error)

    def _samples(self, addresses: Sequence[Address | None]) -> list[TrainingExample | Skipped | None]:
        wanted = [address for address in addresses if address is not None and _span(address)[1] <= MAX_BYTES]
        ranges = [self._range(address) for address in wanted]
        ranges += [self._features(address) for address in wanted if self.origins[address.dataset].features]
        read = iter(self._reader.read(ranges))
        data = {address: next(read) for address in wanted}
        features = {address: next(read) for address in wanted if self.origins[address.dataset].features}
        return [self._made(address, data, features) for address in addresses]

    def targets(self, addresses: Sequence[Address]) -> list[tuple[Address, Target]]:
        """Give what samples teach, by all of their captions: no image is read; damaged ones are left out."""
        small = [address for address in addresses if address.record_size <= MAX_BYTES]
        ranges = [
            (self.origins[at.dataset].shards[at.shard], at.record, at.record + at.record_size) for at in small
        ]
        found = []
        for address, record in zip(small, self._reader.read(ranges), strict=True):
            with contextlib.suppress(DataError):
                found.append((address, self._taught(self.origins[address.dataset], record)))
        return found

    def _taught(self, origin: DatasetInfo, record: bytes) -> Target:
        if origin.choice is None and self._decisions is None:
            sample = parse_verdicts(record)
            mentions = [mention.tag for caption in sample.captions for mention in caption.mentions]
            verdicts = ((tag.tag, tag.verdict) for tag in sample.tags)
            return origin.classes.of_verdicts(verdicts, mentions, origin.marks.marks(sample, stored=True))
        whole = parse_sample(record)
        return self._target(origin, whole, whole.captions)

    def _target(self, origin: DatasetInfo, sample: Sample, captions: Sequence[SampleCaption]) -> Target:
        newer = self._decisions.tags_of(sample) if self._decisions else None
        mentions = [mention.tag for caption in captions for mention in caption.mentions]
        tags = sample.tags if newer is None else newer
        marks = origin.marks.marks(sample, stored=newer is None and origin.choice is None)
        return origin.classes.target(tags, mentions, origin.choice, marks)

    def _range(self, address: Address) -> Range:
        start, size = _span(address)
        return self.origins[address.dataset].shards[address.shard], start, start + size

    def _features(self, address: Address) -> Range:
        features = self.origins[address.dataset].features
        if features is None:
            raise ValueError("this dataset has no features")
        start = features.starts[address.shard] + 2 * features.dimension * address.row
        return features.uris[address.shard], start, start + 2 * features.dimension

    def _made(
        self, address: Address | None, data: dict[Address, bytes], features: dict[Address, bytes]
    ) -> TrainingExample | Skipped | None:
        if address is None:
            return None
        try:
            if address not in data:
                raise DataError(
                    Reason.MEMBER_TOO_LARGE, f"{_span(address)[1]} bytes, the limit is {MAX_BYTES}"
                )
            return self._example(address, data[address], features.get(address, b""))
        except MemoryError:
            return self._skipped(address, pixels.out_of_memory())
        except DataError as error:
            return self._skipped(address, error)

    def _skipped(self, address: Address, error: DataError) -> Skipped:
        uri, start, _ = self._range(address)
        return Skipped(f"{uri}@{start}", error.reason, error.detail)

    def _example(self, address: Address, data: bytes, features: bytes) -> TrainingExample:
        origin, (start, size) = self.origins[address.dataset], _span(address)
        wanted = 2 * origin.features.dimension if origin.features else 0
        if len(data) != size or len(features) != wanted:
            raise DataError(Reason.SOURCE_TRUNCATED, f"{len(data)} of {size} bytes")
        image_at, record_at = address.image - start, address.record - start
        sample = parse_sample(data[record_at : record_at + address.record_size])
        stored = data[image_at : image_at + address.image_size]
        image = pixels.decode(stored, self._max_pixels, self._max_bytes)
        if hashlib.sha256(stored).hexdigest() != sample.sha256:  # the index may pair it with another's record
            raise DataError(Reason.IMAGE_CHANGED, f"{sample.key}: the image is not the one of its record")
        view_seed, caption_draw = _chance(self._seed, origin.name, sample.key, address.turn)
        captions = [caption for caption in sample.captions if caption.text.strip()]
        caption = captions[caption_draw % len(captions)] if captions else None
        target = self._target(origin, sample, [caption] if caption else [])
        text = caption.text if caption else ""
        taught = np.frombuffer(features, np.float16).astype(np.float32)
        return TrainingExample(origin.name, sample.key, self._view(image, view_seed), target, text, taught)


def _span(address: Address) -> tuple[int, int]:
    """Give the first byte and the length of what holds both members."""
    start = min(address.image, address.record)
    stop = max(address.image + address.image_size, address.record + address.record_size)
    return start, stop - start


def _chance(seed: int, dataset: str, key: str, turn: int) -> tuple[int, int]:
    """Draw two numbers of 64 bits for one showing of one sample."""
    text = json.dumps([seed, dataset, key, turn])
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
