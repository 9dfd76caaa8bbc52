"""Features: the shards' images -> CLIP's features of them, for a tagger to be distilled from.

They lie under the shards' names in a folder of their own, see `shard_contract`; a training that reads them
runs no CLIP. They are of the whole image, where a training without them shows CLIP the crop that it augments.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tagmill.models import base
from tagmill.models.base import Floats, Prepared
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError, DataError
from tagmill.tag_system.core.text import parse_json
from tagmill.transforms import bitmaps, parquet, parts
from tagmill.transforms.answers import check_vectors
from tagmill.transforms.images import IMAGE_REFERENCE, read_references
from tagmill.transforms.on_pixels import ModelConfig, ModelStage, run_on_pixels
from tagmill.transforms.parts import Header, Inputs, Output, Part
from tagmill.transforms.stage import PartTask

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("length", pa.float32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
"""A row for each example of a shard that has features; `length` is theirs, `sha256` the image's."""

EXAMPLES = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", IMAGE_REFERENCE, nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
"""What is read of a shard: of ingest's columns those that decoding needs."""


NOTHING = ("dropped", "dead", "dead_captions", "files", "slices", "by_row", "read", "seconds", "notes")
"""What the header of a shard, read as a part, has none of."""


class FeaturesConfig(ModelConfig):
    """The model that teaches: an `open-clip`, or any `FeatureModel`. `batch_size` counts images."""

    batch_size: int = Field(64, ge=1)


class Features(ModelStage[FeaturesConfig]):
    """Features of every image of a shard."""

    kind = "shard_parts"
    name = "features"
    version = 3
    schema = SCHEMA

    def inputs(self) -> tuple[str, ...]:
        """The shards alone: they are the dataset, whether or not their sources are still there."""
        return ("shards",)

    def _spec(self) -> dict[str, Any]:
        model = base.create_for_pixels(self.config.model, self.config.options)
        if not hasattr(model, "image_features"):
            raise ConfigError(
                f"features.model: {self.config.model} has no method image_features: name an open-clip, or "
                "add it to your class"
            )
        # Features depend on no word, so the vocabulary is not part of it.
        return {"model": model.fingerprint()}

    def read(self, task: PartTask) -> Inputs:
        """Read what the samples of a shard say of their images, as if they were the examples of a part."""
        index = parquet.read_table(task.inputs["shards"])
        header = parse_json((index.schema.metadata or {})[contract.METADATA_KEY])
        members = index.to_pylist()
        tar = task.name + ".tar"
        images = [_range(tar, member) for member in members if not member["member"].endswith(".json")]
        records = [_range(tar, member) for member in members if member["member"].endswith(".json")]
        if not len(images) == len(records) == header["examples"]:
            raise DamageError(
                f"{task.inputs['shards']} does not list {header['examples']} samples; "
                "run the stage shards again"
            )
        examples = [
            {name: getattr(sample, name) for name in ("key", "width", "height", "sha256")}
            | {"row": row, "image": image}
            for row, (image, sample) in enumerate(
                zip(images, _parsed(read_references(records, task.root), tar), strict=True)
            )
        ]
        table = pa.Table.from_pylist(examples, EXAMPLES)
        return Inputs(task.name, {"ingest": Part(_header(task, header), table)}, {}, task.root)

    def process(self, inputs: Inputs) -> Output:
        """Make the features of one shard."""

        def call(batch: list[tuple[int, Prepared]]) -> Floats:
            found: Floats = self.model.image_features([one for _, one in batch])
            check_vectors(found, len(batch))
            return found

        run = run_on_pixels(self, inputs, inputs.rows, call)
        found = {row: (vector, float(np.linalg.norm(vector))) for row, vector in run.results.items()}
        output = self._output(inputs, found)
        output.dead, output.seconds = run.dead, run.seconds
        output.notes |= run.notes
        return output

    def reuse(self, inputs: Inputs, folder: str) -> Output | None:
        """Take the features of the same images from an earlier state of the shard, if it had all of them."""
        table = parquet.read_table(parts.part_uri(folder, inputs.name), ["row", "length", "sha256"])
        array = np.load(io.BytesIO(files.read_bytes(parts.array_uri(folder, inputs.name))))
        known = {one["sha256"]: (array[one["row"]], one["length"]) for one in table.to_pylist()}
        found = {row: known.get(inputs.examples[row]["sha256"]) for row in inputs.rows}
        complete = {row: one for row, one in found.items() if one is not None}
        return self._output(inputs, complete) if len(complete) == len(found) else None

    def _output(self, inputs: Inputs, found: Mapping[int, tuple[Floats, float]]) -> Output:
        """Make a part of vectors and their lengths, by row."""
        dimension = len(next(iter(found.values()))[0]) if found else 0
        array = np.full((len(inputs.rows), dimension), np.nan, np.float16)
        records = []
        for row, (vector, length) in found.items():
            array[row] = vector
            sha256 = inputs.examples[row]["sha256"]
            records.append({"row": row, "key": inputs.key(row), "length": length, "sha256": sha256})
        data = io.BytesIO()
        np.save(data, array)
        notes = contract.FeatureNotes(
            shard=inputs.parts["ingest"].header.digest,
            sha256=hashlib.sha256(data.getvalue()).hexdigest(),
            dimension=dimension,
            model=self.spec["model"],
        )
        return Output(
            pa.Table.from_pylist(records, SCHEMA),
            len(inputs.rows),
            notes=notes.model_dump(),
            array=data.getvalue(),
        )


def _parsed(records: Iterable[bytes], tar: str) -> Iterator[contract.Sample]:
    try:
        yield from map(contract.parse_sample, records)
    except DataError as error:
        raise DamageError(f"{tar} has {error.detail}") from error


def _range(tar: str, member: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "range", "uri": tar, "offset": member["offset"], "size": member["size"]}


def _header(task: PartTask, shard: dict[str, Any]) -> Header:
    """Describe a shard as a part; its digest is the sha256 of the tar."""
    return Header(
        stage="shards",
        version=shard["version"],
        name=task.name,
        fingerprint=shard["fingerprint"],
        spec={},
        digest=shard["sha256"],
        rows=bitmaps.first(shard["examples"]),
        captions=0,
        **{name: {} for name in NOTHING},
        base="",
        tags=[],
        libraries={},
    )
