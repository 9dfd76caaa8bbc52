"""The images of decided examples, and the best boxes of their tags, wherever they lie: to make pictures."""

import hashlib
from collections.abc import Collection
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.models.base import Image
from tagmill.models.training.datasets import read_index
from tagmill.models.training.ranges import RangeReader
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import Example, PixelReader
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError, DataError
from tagmill.tag_system.sample_tags import LOCALIZER
from tagmill.tag_system.shard_contract import ManifestShard, Sample, SampleTag, parse_sample
from tagmill.transforms import images, parquet, parts
from tagmill.transforms.ingest import IngestConfig

SIDES = ("x1", "y1", "x2", "y2")


class DecidedImages(Protocol):
    """Finds images of a side, and decodes them."""

    def examples(self, part: str, rows: Collection[int]) -> list[Example]:
        """Find examples of a chunk, each with the best box of each of its tags. Raises DamageError."""

    def read(self, example: Example) -> Image:
        """Decode the image of an example that `examples` gave; raises as `PixelReader.read` does."""


class RunImages:
    """Those of a run, in the generations that `ingest` and `localize` recorded."""

    def __init__(self, run: RunFolder, ingest: StageRecord, localize: StageRecord | None) -> None:
        self._run, self._ingest, self._localize = run, ingest, localize
        self._pixels = PixelReader(run)

    def examples(self, part: str, rows: Collection[int]) -> list[Example]:
        """Read their rows of ingest and localize."""
        ingested = self._rows(self._ingest, part, rows, ["row", "key", "sha256", "image"]).to_pylist()
        regions: dict[int, list[dict[str, Any]]] = {}
        if self._localize is not None and part in self._localize.parts:
            found = self._rows(self._localize, part, rows, ["row", "tag", "region", *SIDES])
            for region in found.filter(pc.equal(found["region"], 0)).to_pylist():
                regions.setdefault(region["row"], []).append(region)
        return [
            Example(one["key"], part, one["row"], ingested=one, regions=regions.get(one["row"], []))
            for one in ingested
        ]

    def _rows(self, record: StageRecord, part: str, rows: Collection[int], columns: list[str]) -> pa.Table:
        folder = self._run.generation(record.stage, record.generation)
        table = parquet.read_table(parts.part_uri(folder, part), columns)
        return table.filter(pc.is_in(table["row"], pa.array(sorted(rows), pa.int32())))

    def read(self, example: Example) -> Image:
        """Decode an image from the source of its run."""
        return self._pixels.read(example)


class ShardImages:
    """Those in the shards of a dataset; a row is the place of a sample in its shard."""

    def __init__(self, folder: str, shards: dict[str, ManifestShard]) -> None:
        self._folder, self._shards = folder, shards

    def examples(self, part: str, rows: Collection[int]) -> list[Example]:
        """Read their samples."""
        numbers = sorted(rows)
        shard = self._shards[part]
        uri = files.join(self._folder, f"{part}.tar")
        places = read_index(self._folder, shard)[numbers]
        found = []
        for number, place, sample in zip(
            numbers, places, read_samples(self._folder, shard, numbers), strict=True
        ):
            image = {
                "kind": "range",
                "uri": uri,
                "offset": int(place["image"]),
                "size": int(place["image_size"]),
            }
            ingested = {"key": sample.key, "sha256": sample.sha256, "image": image}
            boxes = [region for tag in sample.tags if (region := _best_region(tag))]
            found.append(Example(sample.key, part, number, ingested=ingested, regions=boxes))
        return found

    def read(self, example: Example) -> Image:
        """Decode an image out of its shard."""
        about = example.ingested or {}
        (data,) = images.read_references([about["image"]], "")
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise DamageError(f"{about['image']['uri']} holds another image of {example.key}: copy it again")
        return images.decode(data, IngestConfig().max_pixels)


def _best_region(tag: SampleTag) -> dict[str, Any] | None:
    """Give the best box of a tag as a row of localize has it."""
    for entry in tag.evidence:
        if entry.model == LOCALIZER and entry.boxes:
            return {"tag": tag.tag, "region": 0, **dict(zip(SIDES, entry.boxes[0][:4], strict=True))}
    return None


def read_samples(folder: str, shard: ManifestShard, rows: Collection[int] | None = None) -> list[Sample]:
    """Read the samples of a shard, or some by their places, without their images. Raises DamageError."""
    uri = files.join(folder, f"{shard.name}.tar")
    places = read_index(folder, shard)
    chosen = places if rows is None else places[list(rows)]
    ranges = [(uri, int(p["record"]), int(p["record"]) + int(p["record_size"])) for p in chosen]
    try:
        return list(map(parse_sample, RangeReader().read(ranges)))
    except (OSError, DataError) as error:
        raise DamageError(f"{uri} cannot be read ({error}): copy the shard again") from error
