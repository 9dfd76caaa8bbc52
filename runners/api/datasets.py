"""The samples of shards, for callers in Python. Needs no torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image as pillow

from tagmill.models.training import datasets
from tagmill.models.training.ranges import Range, RangeReader
from tagmill.runners.api import html
from tagmill.tag_system.core.errors import DamageError, DataError
from tagmill.tag_system.decisions import Evidence
from tagmill.tag_system.sample_tags import evidence_of
from tagmill.tag_system.shard_contract import Manifest, Split, parse_sample
from tagmill.tag_system.shard_contract import Sample as Record
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import images
from tagmill.transforms.ingest import IngestConfig

READ_AT_ONCE = 64
"""Samples that are read by one request while a dataset is iterated."""


@dataclass(frozen=True, repr=False)
class DatasetSample:
    """One sample of a dataset.

    Attributes:
        encoded: The image's bytes, as they stand in the shard.
        record: Its JSON record: captions, decisions with their evidence, labels, meta.
    """

    encoded: bytes
    record: Record

    @property
    def key(self) -> str:
        """The sample's key, `<input>/<source key>`."""
        return self.record.key

    @property
    def tags(self) -> list[str]:
        """The tags that were kept."""
        return [tag.tag for tag in self.record.tags if tag.verdict == "kept"]

    @property
    def evidence(self) -> dict[str, Evidence]:
        """What is known of each tag that was decided on; `decide` decides on it."""
        return {tag.tag: evidence_of(tag) for tag in self.record.tags}

    @property
    def captions(self) -> list[str]:
        """The captions, generated ones too."""
        return [caption.text for caption in self.record.captions]

    @property
    def image(self) -> pillow.Image:
        """The image, upright and in RGB; decoded again each time. Raises DataError."""
        return pillow.fromarray(images.decode(self.encoded, IngestConfig().max_pixels))

    def __repr__(self) -> str:
        return f"<sample {self.key}: {', '.join(self.tags) or 'no tags'}>"

    def _repr_html_(self) -> str:
        proposed = [tag.model_dump() for tag in self.record.tags if tag.rule != "not_proposed"]
        return (
            html.heading(self.key)
            + html.picture(self.image)
            + html.items(self.captions)
            + html.table(proposed, html.SAMPLE_COLUMNS)
        )


class ShardDataset:
    """The samples of one split of a dataset, in the order of its shards."""

    def __init__(self, dataset: datasets.Dataset, split: Split) -> None:
        self._dataset, self._split = dataset, split
        self._reader = RangeReader()

    @property
    def folder(self) -> str:
        """Where the shards lie."""
        return self._dataset.folder

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the tags are from."""
        return self._dataset.vocabulary

    @property
    def manifest(self) -> Manifest:
        """What the dataset is, and what it was made by."""
        return self._dataset.manifest

    def __len__(self) -> int:
        return len(self._dataset.places)

    def __getitem__(self, place: int) -> DatasetSample:
        if not -len(self) <= place < len(self):
            raise IndexError(f"{place}: the dataset has {len(self)} samples")
        return self._read([place % len(self)])[0]

    def __iter__(self) -> Iterator[DatasetSample]:
        for start in range(0, len(self), READ_AT_ONCE):
            yield from self._read(range(start, min(start + READ_AT_ONCE, len(self))))

    def __repr__(self) -> str:
        return f"<dataset {self.folder}, split {self._split}: {len(self):,} samples>"

    def _repr_html_(self) -> str:
        return f"<code>{html.safe(repr(self))}</code>"

    def _read(self, places: range | list[int]) -> list[DatasetSample]:
        ranges = [span for place in places for span in self._spans(place)]
        data = self._reader.read(ranges)
        return [self._sample(data[i], data[i + 1], ranges[i]) for i in range(0, len(data), 2)]

    def _spans(self, place: int) -> tuple[Range, Range]:
        """Say where the image and the record of a sample lie."""
        shard = int(self._dataset.ends.searchsorted(place, side="right"))
        uri, found = self._dataset.shard_uri(shard), self._dataset.places[place]
        image, record = int(found["image"]), int(found["record"])
        return (
            (uri, image, image + int(found["image_size"])),
            (uri, record, record + int(found["record_size"])),
        )

    def _sample(self, encoded: bytes, record: bytes, span: Range) -> DatasetSample:
        try:
            return DatasetSample(encoded, parse_sample(record))
        except DataError as error:
            raise DamageError(f"{span[0]}, byte {span[1]}: {error}; copy the shard again") from error


def open_dataset(folder: str | os.PathLike[str], split: Split = "train") -> ShardDataset:
    """Open a split of a dataset of shards.

    Args:
        folder: Where the manifest lies, such as RUN/shards/GENERATION: a path or an fsspec URL.
        split: "train", "val" or "test".

    Returns:
        A sequence of samples, each with `key`, `image`, `tags`, `captions` and `record`.

    Raises:
        ConfigError: The folder holds no whole dataset, or the split has no examples.
        DamageError: A file is missing, or is not what the manifest says.

    Examples:
        >>> from tagmill import open_run
        >>> folder = open_run("runs/photos").dataset().folder
        >>> dataset = open_dataset(folder, "train")
        >>> len(dataset), dataset[0]
        (2, <sample photos/beach: airplane, beach>)
        >>> dataset[0].image.size
        (128, 128)
    """
    return ShardDataset(datasets.open_dataset(os.fspath(folder), split), split)
