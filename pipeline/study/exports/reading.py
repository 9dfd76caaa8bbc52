"""Reads the examples of a dataset for an export: JSON records first, then the images of those chosen."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tagmill.models.training import datasets
from tagmill.models.training.ranges import Range, RangeReader
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.exports.chosen import ChosenExample, ImagePlace, choose
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError, DataError
from tagmill.tag_system.shard_contract import ManifestShard

RECORDS_AT_ONCE = 256
"""Examples whose records are held together."""

IMAGE_BYTES_AT_ONCE = 32 << 20
"""Bytes of images that are held together; a larger one is held alone."""

Chooser = Callable[[Sequence[ChosenExample]], Sequence[ChosenExample]]


def dataset_folder(folder: str) -> str:
    """Give the folder of a dataset: of a run, its current shards. Raises ConfigError if there is none."""
    if files.exists(files.join(folder, contract.MANIFEST)):
        return folder
    run = RunFolder(folder)
    if not files.exists(run.path("run.yaml")):
        raise ConfigError(
            f"{folder} is neither a run folder, with run.yaml, nor a dataset, with {contract.MANIFEST}"
        )
    generation = run.current("shards")
    if generation is None:
        raise ConfigError(f"{folder} has no shards yet: run it to its end")
    return run.generation("shards", generation)


class ShardReader:
    """Reads the examples of shards. Its methods raise DamageError for what is not as the manifest says."""

    def __init__(self, folder: str, verdicts: Sequence[str], box_score: float) -> None:
        self._folder, self._verdicts, self._box_score = folder, verdicts, box_score
        self._reader = RangeReader()

    def examples(self, shard: ManifestShard, chooser: Chooser, *, images: bool) -> Iterator[ChosenExample]:
        """Give the examples of a shard that `chooser` takes, in their order, with or without images.

        Memory does not grow with the shard: `chooser` gets up to `RECORDS_AT_ONCE` examples at a time.
        """
        uri = files.join(self._folder, shard.name + ".tar")
        places = datasets.read_index(self._folder, shard)
        for start in range(0, len(places), RECORDS_AT_ONCE):
            some = places[start : start + RECORDS_AT_ONCE]
            ranges = [(uri, int(p["record"]), int(p["record"]) + int(p["record_size"])) for p in some]
            spots = [ImagePlace(shard.name, int(p["image"]), int(p["image_size"])) for p in some]
            records = zip(self._read(ranges), ranges, spots, strict=True)
            chosen = chooser([self._example(shard, *record) for record in records])
            yield from self._with_images(uri, chosen) if images else chosen

    def _example(self, shard: ManifestShard, data: bytes, where: Range, place: ImagePlace) -> ChosenExample:
        try:
            found = choose(data, place, self._verdicts, self._box_score)
        except DataError as error:
            raise DamageError(f"{where[0]}, byte {where[1]}: {error}; copy the shard again") from error
        if found.sample.split != shard.split:
            said = f"a sample of the split {found.sample.split}"
            raise DamageError(f"{where[0]}, byte {where[1]}: {said}; copy the shard again")
        return found

    def _with_images(self, uri: str, examples: Sequence[ChosenExample]) -> Iterator[ChosenExample]:
        for some in _batches(examples):
            ranges = [(uri, one.place.offset, one.place.offset + one.place.size) for one in some]
            for one, data in zip(some, self._read(ranges), strict=True):
                if hashlib.sha256(data).hexdigest() != one.sample.sha256:
                    raise DamageError(
                        f"{uri}, byte {one.place.offset}: the image of {one.sample.key} does not match its "
                        "sha256; copy the shard again"
                    )
                yield replace(one, stored=data)

    def _read(self, ranges: Sequence[Range]) -> list[bytes]:
        try:
            found = self._reader.read(ranges)
        except OSError as error:
            raise DamageError(f"{ranges[0][0]} cannot be read ({error}); copy the shard again") from error
        for (uri, start, stop), data in zip(ranges, found, strict=True):
            if len(data) != stop - start:
                raise DamageError(f"{uri} ends before byte {stop}; copy the shard again")
        return found


def _batches(examples: Sequence[ChosenExample]) -> Iterator[list[ChosenExample]]:
    """Part examples so that the images of a batch keep to `IMAGE_BYTES_AT_ONCE`."""
    batch: list[ChosenExample] = []
    size = 0
    for one in examples:
        if batch and size + one.place.size > IMAGE_BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += one.place.size
    if batch:
        yield batch
