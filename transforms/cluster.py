"""Cluster: per tag, the centres of its regions' embeddings and how far regions lie from them.

No place ever holds all regions of a tag. A first pass counts; from the counts follows, for each tag, a
cutoff on a hash of the region, under which about `max_sample` regions lie; a second pass writes only their
vectors, in buckets of tags; then one task a bucket runs k-means. The sample depends on names and row numbers
alone, never on the order of work. K-means++ on a tag's regions follows RAM (arXiv 2306.03514, section 3.3).
"""

import hashlib
import io
import math
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.pvalue import AsDict
from numpy.typing import NDArray
from pydantic import Field, create_model

from tagmill.models.base import Floats
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import Config
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms import failures, parquet, parts
from tagmill.transforms.stage import (
    BUCKET,
    PartTask,
    RunContext,
    TableStage,
    kept_names,
    limit_threads,
    living,
)
from tagmill.transforms.stopwatch import TimedFn

SCHEMA = pa.schema(
    [
        pa.field("tag", pa.string(), nullable=False),
        pa.field("regions", pa.int64(), nullable=False),
        pa.field("sampled", pa.int32(), nullable=False),
        pa.field("dimension", pa.int32(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("centroids", pa.list_(pa.float32()), nullable=False),
        pa.field("spread", pa.float32()),
        pa.field("distances", pa.list_(pa.float32()), nullable=False),
    ]
)
"""A row a tag: `centroids` are k x dimension numbers; `spread` is the mean distance of a sampled region to
its nearest centre, `distances` are these distances themselves, rising. A tag with too few regions has k = 0
and neither."""

VECTORS_A_BUCKET = 100_000

Hashes = NDArray[np.uint64]
Halves = NDArray[np.float16]

if TYPE_CHECKING:
    _Origin = Config
else:  # a word of Python cannot be the name of a field in a class
    _Origin = create_model("_Origin", __base__=Config, **{"from": (str | None, Field(None, min_length=1))})


class ClusterConfig(_Origin):
    """`k` fixed, or None to let it grow with the sample: a centre for every `regions_a_centre` regions, up to
    `max_k`; with few regions, outliers would get centres of their own. A tag with fewer than `min_regions` is
    not clustered, and so none of its regions is an outlier.

    `from` is the folder of a run, this one too: a tag that is in its table, or in this run's, stays as it is.
    """

    k: int | None = Field(None, ge=1)
    max_k: int = Field(8, ge=1)
    regions_a_centre: int = Field(60, ge=1)
    min_regions: int = Field(10, ge=2)
    max_sample: int = Field(4_096, ge=2)
    iterations: int = Field(20, ge=1, le=10_000)
    seed: int = Field(0, ge=0, lt=2**31)

    @property
    def kept_run(self) -> str | None:
        """The key `from`."""
        found: str | None = getattr(self, "from")
        return found


class Cluster(TableStage[ClusterConfig]):
    """Makes one table for all parts."""

    name = "cluster"
    version = 2
    schema = SCHEMA
    table = "clusters.parquet"

    @classmethod
    def of_run(cls, run: RunContext) -> Self | None:
        """Make the stage, if there are embeddings."""
        return super().of_run(run) if run.config["embed"] else None

    def inputs(self) -> tuple[str, ...]:
        """Embeddings are embed's."""
        return ("embed",)

    def _spec(self) -> dict[str, Any]:
        if find_spec("faiss") is None:  # better now than after days of embedding
            raise ConfigError("cluster: needs FAISS: pip install 'tagmill[faiss]', or set cluster: null")
        spec = super()._spec()
        # What is kept is no setting: the digests of its rows say what later parts depend on.
        return spec | {"config": {key: value for key, value in spec["config"].items() if key != "from"}}

    @property
    def kept_from(self) -> str | None:
        """The run of `cluster.from`."""
        return self.config.kept_run

    def transform(self, work: str, order: dict[str, int]) -> beam.PTransform:
        """Cluster every tag's regions; buckets of the table lie in the work folder."""
        return ClusterTags(self.config, work, self.shared.threads)


class ClusterTags(beam.PTransform):
    """PartTask -> name of each bucket of the cluster table."""

    def __init__(self, config: ClusterConfig, work: str, threads: int) -> None:
        super().__init__()
        self._config = config
        self._work = work
        self._threads = threads

    def expand(self, tasks: beam.PCollection[PartTask]) -> beam.PCollection[str]:
        """Count, sample, fit."""
        counts = (
            tasks
            | "Count regions" >> beam.ParDo(_CountFn(self._work))
            | "Sum" >> beam.CombinePerKey(sum).with_output_types(tuple[str, int])
        )
        return (
            tasks
            | "Sample" >> beam.ParDo(_SampleFn(self._config, self._work), counts=AsDict(counts))
            | "Group by bucket" >> beam.GroupByKey()
            | "Fit" >> beam.ParDo(_FitFn(self._config, self._work, self._threads), counts=AsDict(counts))
        )


class _CountFn(TimedFn):
    """Counts the regions of one part by tag."""

    step = "count"

    def process(self, element: PartTask) -> Iterable[tuple[str, int]]:
        with self.at_work():
            with failures.noted(self._work):
                part = parts.read_part(element.inputs["embed"], ["row", "tag"])
                table = _unkept(living(part.table, element), self._work)
            for count in table.column("tag").value_counts().to_pylist():
                yield count["values"], count["counts"]


class _SampleFn(TimedFn):
    """Writes the sampled vectors of one part, a row group a bucket, and says which buckets it has.

    A vector is the bytes of its float16s: Arrow and NumPy read them where they lie.
    """

    step = "sample"

    def __init__(self, config: ClusterConfig, work: str) -> None:
        super().__init__(work)
        self._config = config

    def process(self, element: PartTask, counts: dict[str, int]) -> Iterable[tuple[int, tuple[str, int]]]:
        with self.at_work():
            with failures.noted(self._work):
                part = parts.read_part(element.inputs["embed"], ["row", "tag", "region", "embedding"])
                regions = _unkept(living(part.table, element), self._work)
            tags = regions.column("tag").to_pylist()
            hashes = region_hashes(
                element.name, tags, regions.column("row").to_numpy(), regions.column("region").to_numpy()
            )
            cutoffs = {tag: cutoff(counts[tag], self._config.max_sample) for tag in set(tags)}
            chosen = np.flatnonzero(hashes <= np.array([cutoffs[tag] for tag in tags], dtype=np.uint64))
            count = _bucket_count(counts, self._config.max_sample)
            buckets = {tag: bucket(tag, count) for tag in cutoffs}
            bucket_of = np.array([buckets[tags[i]] for i in chosen], dtype=np.int64)
            groups = [int(b) for b in np.unique(bucket_of)]
            if not groups:
                return
            vectors = matrix(regions.column("embedding"))
            names = regions.column("tag").combine_chunks()
            uri = files.join(self._work, f"sample-{element.name}.parquet")
            sink = io.BytesIO()
            schema = _sample_schema(vectors.shape[1])
            with pq.ParquetWriter(sink, schema, compression="none", use_dictionary=["tag"]) as writer:
                for number in groups:
                    rows = chosen[bucket_of == number]
                    columns = [names.take(pa.array(rows)), hashes[rows], _as_bytes(vectors[rows])]
                    writer.write_table(pa.table(columns, schema), row_group_size=len(rows))
            files.create_bytes(uri, sink.getvalue())
            for index, number in enumerate(groups):
                yield number, (uri, index)


def _sample_schema(dimension: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("tag", pa.string(), nullable=False),
            pa.field("hash", pa.uint64(), nullable=False),
            pa.field("embedding", pa.binary(dimension * np.float16().itemsize), nullable=False),
        ]
    )


def _as_bytes(vectors: Halves) -> pa.FixedSizeBinaryArray:
    kind = pa.binary(vectors.shape[1] * vectors.itemsize)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(vectors), [None, pa.py_buffer(vectors)])


def matrix(embeddings: pa.ChunkedArray) -> Halves:
    """View a column of embeddings as one matrix (n, dimension), without a copy of one that is in one piece.

    Raises ValueError if they differ in length.
    """
    column = embeddings.combine_chunks()
    lengths = np.diff(column.offsets.to_numpy())
    if not len(lengths):
        return np.zeros((0, 0), np.float16)
    if (lengths != lengths[0]).any():
        raise ValueError("the embeddings of a part are not of one length")
    return column.flatten().to_numpy().reshape(len(lengths), int(lengths[0]))


class _FitFn(TimedFn):
    """Clusters the tags of one bucket."""

    step = "fit"

    def __init__(self, config: ClusterConfig, work: str, threads: int) -> None:
        super().__init__(work)
        self._config = config
        self._threads = threads

    def setup(self) -> None:
        limit_threads(self._threads)

    def process(
        self, element: tuple[int, Iterable[tuple[str, int]]], counts: dict[str, int]
    ) -> Iterator[str]:
        with self.at_work():
            number, blocks = element
            tables = []
            for uri, group in sorted(blocks):
                with files.open_read(uri) as stream:
                    tables.append(pq.ParquetFile(stream).read_row_group(group))
            # The hash decides who is sampled and in which order: neither workers nor parts leave a trace.
            table = pa.concat_tables(tables)
            order = pc.sort_indices(table, [("tag", "ascending"), ("hash", "ascending")]).to_numpy()
            names = table.column("tag").to_numpy(zero_copy_only=False)[order]
            starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
            vectors = _from_bytes(table.column("embedding"))
            records = []
            for start, stop in zip(starts, [*starts[1:], len(names)], strict=True):
                tag = str(names[start])
                sample = vectors[order[start : min(stop, start + self._config.max_sample)]]
                records.append(fit(tag, sample.astype(np.float32), counts[tag], self._config, self._threads))
            name = f"{BUCKET}{number:05d}.parquet"
            data = parquet.table_bytes(pa.Table.from_pylist(records, SCHEMA))
            files.create_bytes(files.join(self._work, name), data)
            yield name


def _from_bytes(embeddings: pa.ChunkedArray) -> Halves:
    column = embeddings.combine_chunks()
    dimension = column.type.byte_width // np.float16().itemsize
    start, count = column.offset * column.type.byte_width, len(column) * dimension
    return np.frombuffer(column.buffers()[1], np.float16, count, start).reshape(-1, dimension)


def _unkept(regions: pa.Table, work: str) -> pa.Table:
    """Filter regions to those of tags that are to be clustered."""
    kept = kept_names(work)
    return (
        regions.filter(pc.invert(pc.is_in(regions["tag"], pa.array(kept, pa.string())))) if kept else regions
    )


def region_hashes(part: str, tags: list[str], rows: NDArray[Any], regions: NDArray[Any]) -> Hashes:
    """Hash regions by part, row, tag and number to evenly spread uint64."""
    seeds = {tag: _seed(part, tag) for tag in set(tags)}
    mixed = np.array([seeds[tag] for tag in tags], dtype=np.uint64)
    mixed ^= rows.astype(np.uint64) << np.uint64(20) ^ regions.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finish
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _seed(*names: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest(), "little")


def cutoff(count: int, max_sample: int) -> int:
    """Choose the hash under which more than `max_sample` of `count` regions are expected.

    A fifth more, or six standard deviations where that is more: a small sample must not come out short.
    """
    expected = max(1.2 * max_sample, max_sample + 6 * math.sqrt(max_sample) + 20)
    return min(2**64 - 1, int(2**64 * expected / count))


def _bucket_count(counts: dict[str, int], max_sample: int) -> int:
    vectors = sum(min(count, max_sample) for count in counts.values())
    return -(-vectors // VECTORS_A_BUCKET)


def bucket(tag: str, buckets: int) -> int:
    """Choose the bucket of a tag."""
    return _seed(tag) % buckets


def fit(tag: str, vectors: Floats, regions: int, config: ClusterConfig, threads: int) -> dict[str, Any]:
    """Cluster the sampled vectors (n, dimension) of one tag; returns its row of the cluster table."""
    n, dimension = vectors.shape
    row: dict[str, Any] = {"tag": tag, "regions": regions, "sampled": n, "dimension": dimension}
    if n < config.min_regions:
        return row | {"k": 0, "centroids": [], "spread": None, "distances": []}
    k = min(config.k or max(1, min(n // config.regions_a_centre, config.max_k)), n)
    centroids = k_means(vectors, k, config, threads)
    distances = nearest_distance(vectors, centroids)
    spread = float(distances.mean())
    return row | {"k": k, "centroids": centroids.ravel(), "spread": spread, "distances": np.sort(distances)}


def k_means(vectors: Floats, k: int, config: ClusterConfig, threads: int) -> Floats:
    """Run FAISS k-means with k-means++ seeding; returns the centres (k, dimension)."""
    import faiss

    faiss.omp_set_num_threads(threads)
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=config.iterations,
        seed=config.seed,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    kmeans.train(np.ascontiguousarray(vectors))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def nearest_distance(vectors: Floats, centroids: Floats) -> Floats:
    """Measure each vector's Euclidean distance to its nearest centre: (n,)."""
    # Not by a matrix product: it loses half the digits of small distances, and a vector's distance would
    # depend on the others in the call.
    squared = [((vectors - centre) ** 2).sum(axis=1) for centre in centroids]
    nearest: Floats = np.sqrt(np.min(squared, axis=0)).astype(np.float32)
    return nearest
