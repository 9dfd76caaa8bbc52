"""Decided images, wherever they lie: in a run, in an older generation of it, or in a dataset of shards.

One reader for all: a chunk is a part of a run, or a shard, with the key and digest of each image and the
decisions on it.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from tagmill.models.training.datasets import read_manifest
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import CONFIG, RunFolder
from tagmill.pipeline.study.causes import VERSION, made_by
from tagmill.pipeline.study.decided_images import DecidedImages, RunImages, ShardImages, read_samples
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import flatten
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.decisions import Policy
from tagmill.tag_system.sample_tags import decision_of
from tagmill.tag_system.shard_contract import MANIFEST, VOCABULARY
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import bitmaps, clean, parquet, parts
from tagmill.transforms.clean import Clean
from tagmill.transforms.features import Features
from tagmill.transforms.ingest import Ingest
from tagmill.transforms.localize import Localize
from tagmill.transforms.shards import Shards

IMAGES = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("part", pa.string()),
        pa.field("row", pa.int32()),
    ]
)
"""The images of a chunk; `row` is that of ingest, or the place in the shard."""

EVIDENCE = (
    "given",
    "parsed",
    "generated",
    "tagger",
    "asked",
    "boxes",
    "box_score",
    "own_score",
    "other_score",
)
TAGS = pa.schema(
    [pa.field("key", pa.string())]
    + [
        clean.SCHEMA.field(name).with_nullable(True)
        for name in (
            "tag",
            "verdict",
            "rule",
            "basis",
            *EVIDENCE,
            "other_tag",
            "region_score",
            "distance_rank",
        )
    ]
)
"""The decisions, a row each, with what decided."""

LATER = (Shards.name, Features.name)
"""Stages after clean, which decide nothing."""


@dataclass(frozen=True)
class Chunk:
    """Some decided images (`IMAGES`, a row each), and the decisions on them (`TAGS`)."""

    images: pa.Table
    tags: pa.Table


class Decided(Protocol):
    """What was decided on many images.

    Attributes:
        title: What it is called.
        names: Names of its chunks, in order.
        policy: What its verdicts were made under.
        made_by: What made it, by stage: settings, fingerprints of models and vocabulary, the version.
        unknown: Stages of which it is not known whether and how they had a part in it.
        libraries: Versions of libraries by stage and name.
    """

    title: str
    names: list[str]
    policy: Policy
    made_by: dict[str, dict[str, object]]
    unknown: set[str]
    libraries: dict[str, object]

    def read(self, name: str) -> Chunk:
        """Read a chunk. Raises DamageError."""

    def images(self) -> DecidedImages:
        """Find its images."""

    def vocabulary(self) -> Vocabulary:
        """Load the vocabulary of its tags."""


def open_decided(text: str) -> Decided:
    """Open RUN, RUN@GENERATION or the folder of a dataset; a generation is one of the stage clean.

    Raises ConfigError for anything else.
    """
    if files.exists(files.join(text, MANIFEST)):
        return DecidedDataset(text)
    if files.exists(files.join(text, CONFIG)):
        run = RunFolder(text)
        generation = run.current(Clean.name)
        if generation is None:
            raise ConfigError(f"{text}: the stage {Clean.name} was not run yet")
        return DecidedRun(run, generation)
    folder, mark, name = text.rpartition("@")
    if mark and files.exists(files.join(folder, CONFIG)):
        run = RunFolder(folder)
        return DecidedRun(run, _generation(run, name))
    raise ConfigError(
        f"{text} is not a run folder, nor RUN@GENERATION, nor a dataset: it has no {CONFIG} and no {MANIFEST}"
    )


def _generation(run: RunFolder, name: str) -> str:
    """Find the generation of clean whose name begins so. Raises ConfigError that names those there are."""
    there = run.generations(Clean.name)
    found = [one for one in there if name and one.startswith(name)]
    if len(found) == 1:
        return found[0]
    current = run.current(Clean.name)
    listed = ", ".join(f"{one} (current)" if one == current else one for one in there) or "none"
    state = "several" if found else "no"
    raise ConfigError(f"{run.root} has {state} generations {name!r} of {Clean.name}; it has {listed}")


class DecidedRun:
    """A generation of clean, with the generations that it was made from."""

    def __init__(self, run: RunFolder, generation: str) -> None:
        self._run, self._generation = run, generation
        self._record = _record(run, Clean.name, generation)
        is_current = generation == run.current(Clean.name)
        self.title = run.root if is_current else f"{run.root}@{generation}"
        self.names = list(self._record.parts)
        self.policy = Policy(**self._record.settings.get("policy", {}))
        self.unknown: set[str] = set()
        records = {record.stage: record for record in self._passed()}
        self._records = dict(records)
        records |= self._filters(records.keys(), is_current=is_current)
        self.made_by = {
            stage: made_by(stage, record.spec | {"config": record.settings, VERSION: record.version})
            for stage, record in records.items()
        }
        self.libraries = flatten({stage: record.libraries for stage, record in records.items()})

    def _filters(self, passed: AbstractSet[str], *, is_current: bool) -> dict[str, StageRecord]:
        """Give the records of earlier stages that clean does not read, but which take examples out.

        Which generation of them an older one of clean had behind it is known if there is just one.
        """
        stages = self._run.stages()
        found: dict[str, StageRecord] = {}
        for stage in stages[: stages.index(Clean.name)]:
            if stage in passed:
                continue
            current = self._run.current(stage)
            if not is_current and self._run.generations(stage) != [current] * (current is not None):
                self.unknown.add(stage)
            elif current is not None:
                found[stage] = _record(self._run, stage, current)
        return found

    def _passed(self) -> Iterator[StageRecord]:
        """Give the records of all generations that this one was made from, and its own, once each."""
        seen: set[str] = set()
        waiting = [(Clean.name, self._generation)]
        while waiting:
            stage, generation = waiting.pop()
            if stage not in seen:
                seen.add(stage)
                record = _record(self._run, stage, generation)
                waiting += record.inputs.items()
                yield record

    def read(self, name: str) -> Chunk:
        """Read the examples of a part that live, and the decisions on them."""
        ingest = self._run.generation(Ingest.name, self._record.inputs[Ingest.name])
        living = pa.array(bitmaps.numbers(self._record.parts[name].living), pa.int32())
        images = parquet.read_table(parts.part_uri(ingest, name), ["row", "key", "sha256"])
        images = images.filter(pc.is_in(images["row"], living))
        folder = self._run.generation(Clean.name, self._generation)
        tags = parquet.read_table(parts.part_uri(folder, name), ["row", *TAGS.names[1:]])
        tags = tags.filter(pc.is_in(tags["row"], images["row"]))
        keys = images["key"].take(pc.index_in(tags["row"], images["row"]))
        columns = [keys, *(tags[column] for column in TAGS.names[1:])]
        part = pa.array([name] * images.num_rows, pa.string())
        return Chunk(_as(IMAGES, [images["key"], images["sha256"], part, images["row"]]), _as(TAGS, columns))

    def images(self) -> RunImages:
        """Find its images, with the boxes that it was decided on."""
        return RunImages(self._run, self._records[Ingest.name], self._records.get(Localize.name))

    def vocabulary(self) -> Vocabulary:
        """Load the vocabulary that the run's config names."""
        return Vocabulary.load((self._run.saved_config() or {}).get("vocabulary"))


def _record(run: RunFolder, stage: str, generation: str) -> StageRecord:
    record = run.read_record(stage, generation)
    if record is None:
        raise ConfigError(
            f"{run.root}: the generation {generation} of {stage} was not finished, or was removed by "
            "`tagmill gc`; compare another"
        )
    return record


class DecidedDataset:
    """A folder of shards with its manifest."""

    def __init__(self, folder: str) -> None:
        self.title = self._folder = folder.rstrip("/")
        manifest = read_manifest(folder)
        self._shards = {shard.name: shard for shard in manifest.shards}
        self.names = list(self._shards)
        listed = manifest.made_by.get("stages", {})
        stages = {stage: spec for stage, spec in listed.items() if stage not in LATER}
        self.policy = Policy(**stages.get(Clean.name, {}).get("config", {}).get("policy", {}))
        self.unknown: set[str] = set()
        self.made_by = {stage: made_by(stage, spec) for stage, spec in stages.items()}
        found = manifest.made_by.get("libraries", {})
        self.libraries = {f"{stage}.{name}": value for stage in stages for name, value in found.items()}

    def read(self, name: str) -> Chunk:
        """Read the samples of a shard, without their images."""
        images, tags = [], []
        for row, sample in enumerate(read_samples(self._folder, self._shards[name])):
            images.append({"key": sample.key, "sha256": sample.sha256, "part": name, "row": row})
            tags += [{"key": sample.key, **decision_of(tag)} for tag in sample.tags]
        return Chunk(pa.Table.from_pylist(images, IMAGES), pa.Table.from_pylist(tags, TAGS))

    def images(self) -> ShardImages:
        """Find its images."""
        return ShardImages(self._folder, self._shards)

    def vocabulary(self) -> Vocabulary:
        """Read the vocabulary beside the shards."""
        uri = files.join(self._folder, VOCABULARY)
        return Vocabulary.from_text(files.read_bytes(uri).decode(), uri)


def _as(schema: pa.Schema, columns: list[Any]) -> pa.Table:
    return pa.table(columns, schema.names).cast(schema)
