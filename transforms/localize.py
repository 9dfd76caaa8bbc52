"""Localize: pixels + candidates -> boxes with scores, for the tags of each image."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tagmill.models import guard
from tagmill.models.base import Boxes, Image, Prepared, ReadingLocalizer
from tagmill.tag_system.core.errors import DataError
from tagmill.tag_system.kinds import Kind
from tagmill.transforms.answers import check_boxes, check_classes, check_count
from tagmill.transforms.batches import Load
from tagmill.transforms.on_pixels import PIXELS, ModelStage, WholeImageConfig, load, run_on_pixels
from tagmill.transforms.parts import Inputs, Output

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("region", pa.int32()),
        pa.field("x1", pa.float32()),
        pa.field("y1", pa.float32()),
        pa.field("x2", pa.float32()),
        pa.field("y2", pa.float32()),
        pa.field("score", pa.float32()),
    ]
)


class LocalizeConfig(WholeImageConfig):
    """Which kinds of tags have regions, and how much of what is found is kept as evidence."""

    kinds: list[Kind] = ["object"]
    box_floor: float = Field(0.1, ge=0, le=1)
    max_boxes: int = Field(20, ge=1)


class Localize(ModelStage[LocalizeConfig]):
    """A row for each box, best first within a tag; a tag that was asked for in vain has one, without box."""

    name = "localize"
    version = 2
    schema = SCHEMA
    slices = PIXELS | {"candidates": "prompts"}

    def inputs(self) -> tuple[str, ...]:
        """An image is asked for its own candidates only, whatever source named them."""
        return ("ingest", "candidates")

    def _spec(self) -> dict[str, Any]:
        spec = super()._spec()
        spec["config"].pop("kinds", None)  # they decide the candidates' prompts, and nothing here
        return spec

    def cut_slices(self, table: pa.Table) -> dict[str, pa.Table]:
        """Give the boxes, without what else came to the part."""
        return {"regions": table}

    def check_model(self, model: Any) -> None:
        """Check the names that it knows, unless that is any."""
        if model.classes:
            check_classes(model.classes)

    def process(self, inputs: Inputs) -> Output:
        """Look for the candidates of each image of one part."""
        prompts = {row: prompt for row in inputs.rows if (prompt := _prompt(inputs, row))}
        names = {row: [name for name, _ in prompt] for row, prompt in prompts.items()}
        tokens = self._read(names)
        shapes: dict[int, tuple[int, ...]] = {}

        def prepare(row: int, image: Image) -> Prepared:
            shapes[row] = image.shape  # a JPEG may have been decoded at a fraction of its size
            return self.model.prepare(image)

        def call(batch: list[tuple[int, Prepared]]) -> list[Boxes]:
            asked = [names[row] for row, _ in batch]
            found: list[Boxes] = self.model.predict([one for _, one in batch], asked)
            check_count(found, len(batch))
            answers = []
            for (row, _), boxes in zip(batch, found, strict=True):
                answers.append(_scaled(boxes, shapes[row], _size(inputs, row)))
                check_boxes(answers[-1], len(names[row]), _size(inputs, row))
            return answers

        def load_of(row: int) -> Load:
            return load(self, inputs.examples[row], tokens.get(row, ()))

        run = run_on_pixels(self, inputs, list(prompts), call, prepare, load_of)
        records = []
        for row, boxes in run.results.items():
            records += self._records(row, prompts[row], boxes, _size(inputs, row))
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), dead=run.dead, seconds=run.seconds, notes=run.notes)

    def _read(self, names: Mapping[int, list[str]]) -> dict[int, Sequence[int]]:
        """Let the model read the prompts of a part, if it does; gives the lengths of its texts by row.

        A prompt that it cannot read has none: asked about that image, it will say why.
        """
        if not isinstance(self.model, ReadingLocalizer):
            return {}
        model = self.model
        found = {row: guard.prepare(partial(model.lengths_of, asked)) for row, asked in names.items()}
        lengths = {row: one for row, one in found.items() if not isinstance(one, DataError)}
        model.read([names[row] for row in lengths], self.config.batch_size)
        return lengths

    def _records(
        self, row: int, prompt: list[tuple[str, str]], boxes: Boxes, size: tuple[int, int]
    ) -> list[dict[str, Any]]:
        clipped = boxes.boxes.astype(np.float32).reshape(-1, 4)
        clipped = np.clip(clipped, 0, np.array([*size, *size], dtype=np.float32))
        sound = (clipped[:, 2:] > clipped[:, :2]).all(axis=1) & (boxes.scores >= self.config.box_floor)
        found: dict[str, list[tuple[float, ...]]] = {tag: [] for _, tag in prompt}
        for index in np.flatnonzero(sound):
            tag = prompt[int(boxes.tags[index])][1]
            found[tag].append((-float(boxes.scores[index]), *(float(v) for v in clipped[index])))
        records: list[dict[str, Any]] = []
        for tag, regions in found.items():
            if not regions:
                records.append({"row": row, "tag": tag})
            for region, (score, *box) in enumerate(sorted(regions)[: self.config.max_boxes]):
                place = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
                records.append({"row": row, "tag": tag, "region": region, **place, "score": -score})
        return records


def _scaled(boxes: Boxes, shape: tuple[int, ...], size: tuple[int, int]) -> Boxes:
    """Bring boxes from the pixels in which an image was decoded to those that it has."""
    height, width, *_ = shape
    if (width, height) == size:
        return boxes
    return replace(boxes, boxes=boxes.boxes * np.array([size[0] / width, size[1] / height] * 2, np.float32))


def _size(inputs: Inputs, row: int) -> tuple[int, int]:
    """Give width and height of a row's image."""
    example = inputs.examples[row]
    return example["width"], example["height"]


def _prompt(inputs: Inputs, row: int) -> list[tuple[str, str]]:
    """Pair each name that the model is asked for with its tag."""
    return [
        (name, record["tag"]) for record in inputs.of_row("candidates", row) for name in record["prompts"]
    ]
