"""The shard contract: what a shard holds and how it is named. The writer and every reader import it.

A dataset is a folder of `<split>-<number>.tar` with `<split>-<number>.index.parquet` beside each, a
`manifest.json` that is written last, the vocabulary, a data card and `croissant.json`. A tar has two members
for each example: the original image bytes and `<member>.json`, a `Sample`.

Features of the images, which a model is trained towards, lie in a folder of their own under the names of the
shards: `<split>-<number>.npy`, float16 [examples, dimension] in the order of the shard, a row of NaN where an
image has none; and `<split>-<number>.parquet`, whose header tells of which shard they are (`FeatureNotes`).
"""

import datetime
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import quote, unquote

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from tagmill.tag_system.core.errors import ConfigError, DataError, Reason

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Every example is in one. `test` is what a source calls so; nothing is drawn into it."""

LAYOUT = 2
"""Raised when a field changes its meaning; a reader takes no other. Additive changes keep the number."""

METADATA_KEY = b"tagmill"
"""Under which Parquet footers hold what made the file."""

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.tsv"
DATA_CARD = "README.md"
CROISSANT = "croissant.json"

EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tiff",
    "AVIF": "avif",
    "HEIF": "heic",
    "JXL": "jxl",
}
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


ContractT = TypeVar("ContractT", bound=_Contract)


def _this_layout(layout: int) -> int:
    if layout == LAYOUT:
        return layout
    cure = "update tagmill" if layout > LAYOUT else "make the shards again with tagmill run"
    said = {"said": f"layout {layout}, this version reads layout {LAYOUT}; {cure}"}
    raise PydanticCustomError("layout", "{said}", said)


Layout = Annotated[int, AfterValidator(_this_layout)]


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


class SampleLabel(_Contract):
    """A label that the source gave: its own name, and x1, y1, x2, y2 in pixels where it says where."""

    name: str
    box: list[float] | None = None


class SampleSources(_Contract):
    """How many labels, captions, generated captions and probes for hard negatives name a tag."""

    given: int = 0
    parsed: int = 0
    generated: int = 0
    probe: int = 0


Box = tuple[float, float, float, float, float]
"""x1, y1, x2, y2 in pixels of the upright image, and the localizer's score."""


class SampleEvidence(_Contract):
    """What one model says of a tag; `model` is its name in `Manifest.models`. Null: not this model's matter.

    `score` is a tagger's on the image. `boxes` are a localizer's, best first; without any it was asked in
    vain, and who was never asked has no entry. An embedder compares the best box: similarity to its own tag
    and to the best other one, distance to the tag's nearest centre with its rank, and `region_score`, the
    tagger's score on the region. `presence` is a verifier's score on the image.
    """

    model: str
    score: float | None = None
    boxes: list[Box] | None = None
    own_score: float | None = None
    other_score: float | None = None
    other_tag: str | None = None
    region_score: float | None = None
    distance: float | None = None
    distance_rank: float | None = None
    presence: float | None = None


class SampleTag(_Contract):
    """One decision on an image: the verdict, the rule, what it rests on (`decisions.Basis`), the evidence.

    `review` is the answer of a review, `implied_by` the kept tag that this one follows from.
    """

    tag: str
    kind: str
    verdict: str
    rule: str
    basis: str
    sources: SampleSources
    evidence: list[SampleEvidence]
    review: str | None = None
    implied_by: str | None = None


class Sample(_Contract):
    """The JSON member of an example; what is null is left out of it.

    Tags are names of the manifest's vocabulary. `width`, `height` and all boxes are of the upright image,
    `orientation` is the EXIF orientation, 1 to 8, of the stored bytes. `meta` is JSON in one string.
    `implied` are tags that follow from kept ones and were not decided on; `absent` are tags whose absence a
    verifier or a person confirmed: negatives that a trainer may trust. `license` is an identifier of SPDX, or
    what the source says where there is none (`licences.licence_name`).
    """

    layout: Layout
    key: str
    width: int
    height: int
    orientation: int | None = None
    format: str
    sha256: str
    split: str
    captions: list[SampleCaption]
    tags: list[SampleTag]
    labels: list[SampleLabel]
    implied: list[str] | None = None
    absent: list[str] | None = None
    license: str | None = None
    meta: str


class MentionedTag(_Contract):
    """Of a `SampleMention`, its tag."""

    tag: str


class CaptionTags(_Contract):
    """Of a `SampleCaption`, its text and the tags in it."""

    text: str
    mentions: list[MentionedTag]


class TagVerdict(_Contract):
    """Of a `SampleTag`, its verdict."""

    tag: str
    verdict: str


class SampleVerdicts(_Contract):
    """Of a `Sample`, what was decided, marked and mentioned; a tenth of the time to read."""

    layout: Layout
    captions: list[CaptionTags]
    tags: list[TagVerdict]
    implied: list[str] | None = None
    absent: list[str] | None = None


class ManifestShard(_Contract):
    """One shard in the manifest."""

    name: str
    split: str
    examples: int
    bytes: int
    sha256: str


class ManifestModel(_Contract):
    """A model that gave evidence: the stage that ran it, its name in the run's config, what it is exactly."""

    stage: str
    name: str | None = None
    fingerprint: str


class ManifestInput(_Contract):
    """An input of the run: the format of its sources, and how many of its examples are in the dataset."""

    format: str
    examples: int


class Manifest(_Contract):
    """What a dataset is; its presence says that the dataset is whole. Samples call models by `models`.

    `date` is the day that the dataset was given. `examples` counts by split, `formats` by the extension of
    their images, `licenses` by their licence; `inputs` are those of the run, by name. `kept_by` counts kept
    tags by what vouches for them, see `decisions.Basis`, `rules` all decisions by `verdict/rule`. `left_out`
    counts the run's examples that are not here, by the stage that took them out and why.
    """

    layout: Layout
    date: datetime.date | None = None
    vocabulary: str
    tags: int
    examples: dict[str, int]
    formats: dict[str, int] = {}
    licenses: dict[str, int] = {}
    inputs: dict[str, ManifestInput] = {}
    kept_by: dict[str, int] = {}
    rules: dict[str, int] = {}
    left_out: dict[str, dict[str, int]] = {}
    shards: list[ManifestShard]
    models: dict[str, ManifestModel]
    made_by: dict[str, Any]


class FeatureNotes(_Contract):
    """What features are: sha256 of their shard and of the array, numbers a row, the model's fingerprint."""

    shard: str
    sha256: str
    dimension: int = Field(gt=0)
    model: str


def parse_manifest(text: bytes, folder: str) -> Manifest:
    """Read the manifest of a folder. Raises ConfigError for another layout, and for what is not one."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "layout":
            raise ConfigError(f"{folder} has shards of {first['msg']}") from error
        raise ConfigError(f"{folder}/{MANIFEST} is not a manifest: {first['msg']}") from error


def parse_sample(text: bytes) -> Sample:
    """Read the JSON member of an example. Raises DataError for another layout, and for what is not one."""
    return _parse(text, Sample)


def parse_verdicts(text: bytes) -> SampleVerdicts:
    """Read the verdicts and mentions alone of an example. Raises DataError as `parse_sample` does."""
    return _parse(text, SampleVerdicts)


def _parse(text: bytes, contract: type[ContractT]) -> ContractT:
    try:
        return contract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        said = f"a sample of {first['msg']}" if first["type"] == "layout" else first["msg"]
        raise DataError(Reason.RECORD_INVALID, said) from error
