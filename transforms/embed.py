"""Embed: pixels + regions -> an embedding of every region, and how it compares with the image's tags."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from tagmill.models import base
from tagmill.models.base import Floats, Image, Prepared
from tagmill.transforms.answers import (
    check_count,
    check_scores,
    check_text_vectors,
    check_unit_vectors,
)
from tagmill.transforms.batches import Load
from tagmill.transforms.images import PIXEL_BYTES
from tagmill.transforms.on_pixels import PIXELS, ModelConfig, ModelStage, room, run_on_pixels
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import RunContext, Shared
from tagmill.transforms.tag import TagConfig

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("region", pa.int32(), nullable=False),
        pa.field("embedding", pa.list_(pa.float16()), nullable=False),
        pa.field("own_score", pa.float32()),
        pa.field("other_score", pa.float32()),
        pa.field("other_tag", pa.string()),
        pa.field("region_score", pa.float32()),
    ]
)


class EmbedConfig(ModelConfig):
    """How regions are cut, and on which of them the tagger is asked again.

    `padding` widens a box on each side by this share of its width and height. `region_tagger`: the tagger of
    the tag stage runs on no region, on the doubtful ones (box score under `doubtful_box`, or closer to
    another tag), or on all, which is ten times the tagger's own work. `batch_size` counts regions.
    """

    padding: float = Field(0.1, ge=0, le=1)
    region_tagger: Literal["off", "doubtful", "all"] = "off"
    doubtful_box: float = Field(0.5, ge=0, le=1)


Region = dict[str, Any]

WORD = "dog"
"""A name whose embedding is checked before any image is."""


@dataclass(frozen=True)
class Cut:
    """A region's pixels as the embedder takes them, and as they are if the tagger may be asked about them."""

    prepared: Prepared
    pixels: Image | None


@dataclass(frozen=True)
class Doubtful:
    """A region that the tagger is asked about: its record, its pixels, and its tag's places in the scores."""

    record: dict[str, Any]
    pixels: Image
    places: list[int]


def window(size: tuple[int, int], region: Region, padding: float) -> tuple[int, int, int, int]:
    """Widen a region by `padding` of its sides to whole pixels of an image: left, top, right, bottom."""
    width, height = size
    x1, y1, x2, y2 = region["x1"], region["y1"], region["x2"], region["y2"]
    dx, dy = (x2 - x1) * padding, (y2 - y1) * padding
    left, top = min(int(max(0.0, x1 - dx)), width - 1), min(int(max(0.0, y1 - dy)), height - 1)
    right, bottom = int(np.ceil(min(width, x2 + dx))), int(np.ceil(min(height, y2 + dy)))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def crop(image: Image, region: Region, padding: float) -> Image:
    """Cut a region's `window`, at least one pixel, out of an image."""
    left, top, right, bottom = window((image.shape[1], image.shape[0]), region, padding)
    return image[top:bottom, left:right]


class Embed(ModelStage[EmbedConfig]):
    """A row for each region; `tagger` is the config of the stage tag, whose model may be asked too."""

    name = "embed"
    version = 2
    schema = SCHEMA
    slices = PIXELS | {"localize": "regions", "candidates": "classes"}

    def __init__(self, config: EmbedConfig, shared: Shared, tagger: TagConfig | None = None) -> None:
        super().__init__(config, shared)
        self._tagger_config = tagger if config.region_tagger != "off" else None
        self._tagger: Any = None
        self._places: dict[str, list[int]] = {}
        self._text: dict[str, Floats | None] = {}

    @classmethod
    def of_run(cls, run: RunContext) -> Self | None:
        """Make the stage beside the run's tagger."""
        config = run.config[cls.name]
        return None if config is None else cls(config, run.shared, run.config["tag"])

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check that there are regions, and a tagger if they are shown to it."""
        embed = config[cls.name]
        if embed and not config["localize"]:
            raise ValueError("embed: needs the stage localize, which is switched off")
        if embed and embed.region_tagger != "off" and not config["tag"]:
            raise ValueError("embed.region_tagger: needs the stage tag, which is switched off")

    def inputs(self) -> tuple[str, ...]:
        """Regions are localize's; which classes of the tagger stand for their tags, candidates says."""
        return ("ingest", "localize", "candidates") if self._tagger_config else ("ingest", "localize")

    def _spec(self) -> dict[str, Any]:
        spec = super()._spec()
        if self._tagger_config:
            tagger = base.create_for_pixels(self._tagger_config.model, self._tagger_config.options)
            spec["tagger"] = tagger.fingerprint()
        return spec

    def tags_of(self, table: pa.Table) -> list[str]:
        """Name the tags of the regions: the clusters of these are what matters for a part."""
        return sorted(set(table["tag"].to_pylist()))

    def check_loaded(self) -> None:
        """Check the embedding of a word."""
        check_text_vectors(self.model.text([WORD]), [WORD])

    def setup(self) -> None:
        """Load the embedder, and the tagger if it is asked about regions."""
        super().setup()
        if self._tagger_config:
            self._tagger = base.create_for_pixels(self._tagger_config.model, self._tagger_config.options)
            self._tagger.load()
            for place, name in enumerate(self._tagger.classes):
                self._places.setdefault(name, []).append(place)

    def process(self, inputs: Inputs) -> Output:
        """Embed the regions of one part."""
        asked = {row: inputs.of_row("localize", row) for row in inputs.rows}
        regions = {row: [r for r in found if r["region"] is not None] for row, found in asked.items()}

        classes = {row: self._classes(inputs, row) for row in inputs.rows}

        def prepare(row: int, image: Image) -> list[Cut]:
            return [self._cut(image, region, classes[row]) for region in regions[row]]

        def call(batch: list[tuple[int, list[Cut]]]) -> list[list[dict[str, Any]]]:
            vectors = iter(self._embed([cut.prepared for _, cuts in batch for cut in cuts]))
            answers = []
            doubtful: list[Doubtful] = []
            for row, cuts in batch:
                tags = sorted({region["tag"] for region in asked[row]})
                records = [self._compare(region, next(vectors), tags) for region in regions[row]]
                doubtful += self._doubtful(cuts, classes[row], regions[row], records)
                answers.append(records)
            self._ask_tagger(doubtful)
            return answers

        def load_of(row: int) -> Load:
            example = inputs.examples[row]
            held = self._held((example["width"], example["height"]), regions[row])
            return Load(row, None, held, items=len(regions[row]), encoded=example["image"]["size"])

        rows = [row for row in inputs.rows if regions[row]]
        run = run_on_pixels(self, inputs, rows, call, prepare, load_of)
        records = [{"row": row, **record} for row, found in run.results.items() for record in found]
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), dead=run.dead, seconds=run.seconds, notes=run.notes)

    def _cut(self, image: Image, region: Region, classes: dict[str, list[int]]) -> Cut:
        pixels = crop(image, region, self.config.padding)
        return Cut(self.model.prepare(pixels), pixels if classes.get(region["tag"]) else None)

    def _held(self, size: tuple[int, int], regions: list[Region]) -> int:
        """Count the room of an image's regions, see `room`, and its own if the tagger may be asked."""
        windows = [window(size, region, self.config.padding) for region in regions]
        prepared = sum(room(self.model, x2 - x1, y2 - y1) for x1, y1, x2, y2 in windows)
        return prepared + (PIXEL_BYTES * size[0] * size[1] if self._tagger else 0)

    def _embed(self, crops: list[Prepared]) -> Floats:
        size = self.config.batch_size
        batches = [crops[i : i + size] for i in range(0, len(crops), size)]
        found = [self.model.predict(batch) for batch in batches]
        for vectors, batch in zip(found, batches, strict=True):
            check_unit_vectors(vectors, len(batch))
        return np.concatenate(found)

    def _compare(self, region: Region, vector: Floats, tags: list[str]) -> dict[str, Any]:
        """Compare a region with its own tag and with the best of the image's other tags, by cosine."""
        self._learn(tags)
        scores = {tag: float(vector @ text) for tag in tags if (text := self._text[tag]) is not None}
        own = scores.pop(region["tag"], None)
        other = max(scores, key=lambda tag: scores[tag], default=None)
        return {
            "tag": region["tag"],
            "region": region["region"],
            "embedding": vector.astype(np.float16),
            "own_score": own,
            "other_score": None if other is None else scores[other],
            "other_tag": other,
            "region_score": None,
        }

    def _learn(self, tags: list[str]) -> None:
        """Embed the names that were not met before, each alone.

        Which others would share its batch depends on the parts that this worker made before, and with them
        the last bits of a vector.
        """
        for tag in tags:
            if tag not in self._text:
                found = self.model.text([tag])
                check_text_vectors(found, [tag])
                (self._text[tag],) = found

    def _classes(self, inputs: Inputs, row: int) -> dict[str, list[int]]:
        """Say at which places of the tagger's scores each tag of an image has its own."""
        return {
            record["tag"]: [place for name in record["classes"] for place in self._places[name]]
            for record in inputs.of_row("candidates", row)
        }

    def _doubtful(
        self,
        cuts: list[Cut],
        classes: dict[str, list[int]],
        regions: list[Region],
        records: list[dict[str, Any]],
    ) -> Iterator[Doubtful]:
        """Choose an image's regions that the tagger is asked about, as far as it knows the tag."""
        for region, record, cut in zip(regions, records, cuts, strict=True):
            if cut.pixels is not None and self._is_asked(region, record):
                yield Doubtful(record, cut.pixels, classes[region["tag"]])

    def _ask_tagger(self, doubtful: list[Doubtful]) -> None:
        """Fill in the tagger's score of each region's own tag."""
        if self._tagger is None or self._tagger_config is None:
            return
        size = self._tagger_config.batch_size
        for start in range(0, len(doubtful), size):
            batch = doubtful[start : start + size]
            found = self._tagger.predict([self._tagger.prepare(one.pixels) for one in batch])
            check_count(found, len(batch))
            for one, scores in zip(batch, found, strict=True):
                check_scores(scores, len(self._tagger.classes))
                one.record["region_score"] = float(np.float32(max(scores[one.places])))

    def _is_asked(self, region: Region, record: dict[str, Any]) -> bool:
        if self.config.region_tagger == "all":
            return True
        own, other = record["own_score"], record["other_score"]
        closer_to_other = own is not None and other is not None and other > own
        return bool(closer_to_other or region["score"] < self.config.doubtful_box)
