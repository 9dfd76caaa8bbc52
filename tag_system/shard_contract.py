"""The shard contract: what a shard holds and how it is named. The writer and every reader import it.

A dataset is a folder of `<split>-<number>.tar` with `<split>-<number>.index.parquet` beside each, a
`manifest.json` that is written last, the vocabulary and a data card. A tar has two members for each example:
the original image bytes and `<member>.json`, a `Sample`.

Features of the images, which a model is trained towards, lie in a folder of their own under the names of the
shards: `<split>-<number>.npy`, float16 [examples, dimension] in the order of the shard, a row of NaN where an
image has none; and `<split>-<number>.parquet`, whose header tells of which shard they are (`FeatureNotes`).
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Literal, get_args
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from tagmill.tag_system.decisions import Evidence

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Every example is in one. `test` is what a source calls so; nothing is drawn into it."""

LAYOUT = 1
"""Raised when a field changes; additive changes are read with their defaults and keep the number."""

METADATA_KEY = b"tagmill"
"""Under which Parquet footers hold what made the file."""

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.tsv"
DATA_CARD = "README.md"

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
"""Member extension by image format."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("member", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)
"""A row for each member of a tar, in its order; `offset` is where the member's bytes begin."""


def escape(key: str) -> str:
    """Turn a key into a member name without dots and slashes; `unescape` turns it back."""
    return quote(key, safe="").replace(".", "%2E")


def unescape(member: str) -> str:
    """Turn a member name, without its extension, back into the key."""
    return unquote(member)


def shard_name(split: str, number: int) -> str:
    """Name a shard, without extension."""
    return f"{split}-{number:06d}"


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True)


class SampleMention(_Contract):
    """A tag in a caption, with its span of characters."""

    tag: str
    kind: str
    start: int
    end: int


class SampleCaption(_Contract):
    """One caption of an image; `given` by the source or `generated` by a captioner."""

    text: str
    source: Literal["given", "generated"]
    mentions: list[SampleMention]


class SampleTag(_Contract):
    """One decision on an image: the verdict, the evidence (see `decisions.Evidence`), all boxes.

    A box is x1, y1, x2, y2 in pixels and its score; the best comes first.
    """

    tag: str
    kind: str
    verdict: str
    rule: str
    evidence: dict[str, Any]
    other_tag: str | None = None
    boxes: list[list[float]] = []


class Sample(_Contract):
    """The JSON member of an example. Tags are names; `vocabulary` is the digest of their list."""

    layout: int
    key: str
    vocabulary: str
    width: int
    height: int
    format: str
    sha256: str
    split: str
    captions: list[SampleCaption]
    tags: list[SampleTag]
    labels: list[dict[str, Any]]
    meta: dict[str, Any]


class ManifestShard(_Contract):
    """One shard in the manifest."""

    name: str
    split: str
    examples: int
    bytes: int
    sha256: str


class Manifest(_Contract):
    """What a dataset is; its presence says that the dataset is whole."""

    layout: int
    vocabulary: str
    tags: int
    examples: dict[str, int]
    shards: list[ManifestShard]
    made_by: dict[str, Any]


class FeatureNotes(_Contract):
    """What features are: sha256 of their shard and of the array, numbers a row, the model's fingerprint."""

    shard: str
    sha256: str
    dimension: int
    model: str


def shorten(value: Any) -> Any:
    """Write float32 values with as few digits as tell them apart; anything else as it is."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    if isinstance(value, Mapping):
        return {key: shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten(item) for item in value]
    return value


def evidence_record(evidence: Evidence) -> dict[str, Any]:
    """Write evidence for a sample; what is not known is left out."""
    return {name: shorten(value) for name, value in asdict(evidence).items() if value is not None}


_EVIDENCE = frozenset(field.name for field in fields(Evidence))


def evidence_of(tag: SampleTag) -> Evidence:
    """Read a sample's evidence back, to the bit, so that `decide` gives the verdict that clean gave."""
    values = {
        name: float(np.float32(value)) if isinstance(value, float) else value
        for name, value in tag.evidence.items()
        if name in _EVIDENCE
    }
    return Evidence(**values)  # type: ignore[arg-type]  # JSON keeps ints, bools and floats apart
