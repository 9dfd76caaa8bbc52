"""Datasets of shards: what the manifest lists, checked, and where in the tars every sample lies."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.text import one_line, parse_json
from tagmill.tag_system.shard_contract import FeatureNotes, Manifest, ManifestShard, Split
from tagmill.tag_system.vocabulary import Vocabulary

PLACE = np.dtype([("image", "i8"), ("image_size", "u4"), ("record", "i8"), ("record_size", "u4")])
"""Where a sample's image and JSON record begin in their tar, and how many bytes they are."""

INDEX = pa.schema([contract.INDEX_SCHEMA.field(name) for name in ("member", "offset", "size")])
"""What is read of an index."""

UNREADABLE = (OSError, ValueError, pa.ArrowException)
"""What pyarrow raises of a file that is not the Parquet file that it should be."""

_THREADS = 16
_EXTENSIONS = "|".join(sorted(contract.EXTENSIONS.values()))


@dataclass(frozen=True)
class StoredFeatures:
    """Stored features to distil from: float16 rows of `dimension` numbers, an array for each shard.

    `starts` says where the numbers begin in the array of each shard.
    """

    dimension: int
    uris: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """The shards of one split of a dataset; `places` [examples] follows their order."""

    name: str
    folder: str
    manifest: Manifest
    vocabulary: Vocabulary
    shards: tuple[ManifestShard, ...]
    places: NDArray[np.void]
    features: "StoredFeatures | None" = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Count the examples of each shard."""
        return tuple(shard.examples for shard in self.shards)

    def shard_uri(self, shard: int) -> str:
        """Name the tar of a shard."""
        return files.join(self.folder, self.shards[shard].name + ".tar")

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Count the examples up to the end of each shard."""
        return np.cumsum(self.counts)


def read_manifest(folder: str) -> Manifest:
    """Read what a folder's dataset is.

    Raises ConfigError for a folder without manifest, and for one of another layout.
    """
    try:
        text = files.read_bytes(files.join(folder, contract.MANIFEST))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{folder} has no {contract.MANIFEST}, so it is not a whole dataset: give the folder that the "
            "stage shards wrote, RUN/shards/GENERATION, or finish that run"
        ) from error
    return contract.parse_manifest(text, folder)


def open_dataset(
    folder: str, split: Split, *, name: str | None = None, features: str | None = None
) -> Dataset:
    """Open a split of a dataset: `folder` is a path or fsspec url, `name` is by default its last part.

    `features` is the folder of the stage features, if its rows are wanted too. Raises ConfigError if the
    folder has no manifest or the split no examples; DamageError if a file is missing, or not what the
    manifest and the shard contract say.
    """
    manifest = read_manifest(folder)
    shards = tuple(shard for shard in manifest.shards if shard.split == split and shard.examples)
    if not shards:
        found = ", ".join(f"{other} ({count})" for other, count in manifest.examples.items())
        raise ConfigError(f"{folder} has no examples in the split {split}; it has {found or 'none at all'}")
    check_sizes(folder, shards)
    with ThreadPoolExecutor(_THREADS) as pool:
        places = list(pool.map(lambda shard: read_index(folder, shard), shards))
    return Dataset(
        name or folder.rstrip("/").rsplit("/", 1)[-1],
        folder,
        manifest,
        read_vocabulary(folder, manifest),
        shards,
        np.concatenate(places),
        None if features is None else _open_features(features, shards),
    )


def first_keys(dataset: Dataset) -> list[str]:
    """Read the keys of a dataset's first shard."""
    uri = files.join(dataset.folder, dataset.shards[0].name + ".index.parquet")
    table = pq.read_table(pa.BufferReader(files.read_bytes(uri)), columns=["key"])
    found: list[str] = table["key"].unique().to_pylist()
    return found


def verify(dataset: Dataset, shards: Iterable[int] | None = None) -> None:
    """Compare the sha256 of shards, by default of all, with the manifest. Raises DamageError."""
    chosen = range(len(dataset.shards)) if shards is None else shards
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda shard: (shard, files.sha256(dataset.shard_uri(shard))), chosen)
        for shard, digest in digests:
            if digest != dataset.shards[shard].sha256:
                uri = dataset.shard_uri(shard)
                raise DamageError(f"{uri} does not match its sha256 in {contract.MANIFEST}: copy it again")


def _open_features(folder: str, shards: Sequence[ManifestShard]) -> StoredFeatures:
    """Check that features are there for these very shards, and find where they begin."""
    with ThreadPoolExecutor(_THREADS) as pool:
        notes = list(pool.map(lambda shard: _feature_notes(folder, shard), shards))
    dimension = notes[0].dimension
    if other := next((note for note in notes if note.dimension != dimension), None):
        raise DamageError(f"{folder} has features of {dimension} and of {other.dimension} numbers")
    sizes, starts = files.list_sizes(folder), []
    for shard in shards:
        begin = sizes.get(f"{shard.name}.npy", 0) - 2 * dimension * shard.examples
        if begin <= 0:
            raise DamageError(f"{files.join(folder, shard.name)}.npy is missing or cut short: copy it again")
        starts.append(begin)
    uris = tuple(files.join(folder, f"{shard.name}.npy") for shard in shards)
    return StoredFeatures(dimension, uris, tuple(starts))


def _feature_notes(folder: str, shard: ManifestShard) -> FeatureNotes:
    uri = files.join(folder, f"{shard.name}.parquet")
    try:
        header = pq.read_schema(pa.BufferReader(files.read_bytes(uri))).metadata[contract.METADATA_KEY]
        notes = FeatureNotes.model_validate(parse_json(header)["notes"])
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder} has no features of {shard.name}: give the folder that the stage features wrote, "
            "RUN/features/GENERATION, or finish that run"
        ) from error
    except (KeyError, TypeError, *UNREADABLE) as error:
        raise _unreadable(uri, error) from error
    if notes.shard != shard.sha256:
        raise ConfigError(f"{uri} has features of another {shard.name}: run the stage features again")
    return notes


def check_sizes(folder: str, shards: Sequence[ManifestShard]) -> None:
    """Compare the sizes of all tars with the manifest: one listing, and no shard is missing or cut short."""
    sizes = files.list_sizes(folder)
    for shard in shards:
        size = sizes.get(f"{shard.name}.tar")
        if size != shard.bytes:
            uri = files.join(folder, shard.name + ".tar")
            state = "is missing" if size is None else f"has {size} bytes"
            raise DamageError(f"{uri} {state}, the manifest says {shard.bytes} bytes: copy it again")


def read_vocabulary(folder: str, manifest: Manifest) -> Vocabulary:
    """Read the vocabulary of a dataset. Raises DamageError if it is not the one that the manifest names."""
    uri = files.join(folder, contract.VOCABULARY)
    try:
        vocabulary = Vocabulary.from_text(files.read_bytes(uri).decode(), uri)
    except FileNotFoundError as error:
        raise DamageError(f"{uri} is missing: copy it again") from error
    except UnicodeDecodeError as error:
        raise DamageError(f"{uri} is not UTF-8 text: copy it again") from error
    except ConfigError as error:
        raise _unreadable(uri, error) from error
    if vocabulary.digest != manifest.vocabulary:
        raise DamageError(f"{uri} is not the vocabulary that {contract.MANIFEST} names: copy both again")
    return vocabulary


def read_index(folder: str, shard: ManifestShard) -> NDArray[np.void]:
    """Read where a shard's samples lie: `PLACE` [examples]."""
    uri = files.join(folder, shard.name + ".index.parquet")
    try:
        data = pa.BufferReader(files.read_bytes(uri))
        table = pq.read_table(data, columns=INDEX.names).select(INDEX.names).cast(INDEX)
    except FileNotFoundError as error:
        raise DamageError(f"{uri} is missing: copy it again") from error
    except (KeyError, *UNREADABLE) as error:
        raise _unreadable(uri, error) from error
    if not _lie_within(table, shard.bytes):
        raise DamageError(f"{uri} lists what does not lie in {shard.name}.tar: copy both again")
    is_record = pc.ends_with(table["member"], ".json")
    records, images = table.filter(is_record), table.filter(pc.invert(is_record))
    if not len(records) == len(images) == shard.examples or not _are_pairs(images, records):
        raise DamageError(
            f"{uri} does not list {shard.examples} pairs of an image ({_EXTENSIONS}) and a JSON record, "
            "and nothing else: make the shard again"
        )
    places = np.empty(shard.examples, dtype=PLACE)
    for field, members in (("image", images), ("record", records)):
        places[field] = members["offset"].to_numpy()
        places[f"{field}_size"] = members["size"].to_numpy()
    return places


def _unreadable(uri: str, error: Exception) -> DamageError:
    return DamageError(f"{uri} cannot be read ({one_line(str(error))}): copy it again")


def _lie_within(members: pa.Table, size: int) -> bool:
    """Tell whether all members lie in a tar of so many bytes."""
    starts, sizes = members["offset"].to_numpy(), members["size"].to_numpy()
    return bool(((starts >= 0) & (sizes >= 0) & (sizes <= size) & (starts <= size - sizes)).all())


def _are_pairs(images: pa.Table, records: pa.Table) -> bool:
    """Tell whether every record has its image, in the same order, of an extension that is decoded."""
    stems = [pc.replace_substring_regex(t["member"], r"\.[^.]*$", "") for t in (images, records)]
    known = pc.match_substring_regex(images["member"], rf"\.({_EXTENSIONS})$")
    return bool(pc.all(pc.and_(known, pc.equal(*stems))).as_py())
