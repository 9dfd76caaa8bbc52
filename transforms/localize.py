"""Localize: pixels + candidates -> boxes with scores, for the tags of each image."""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tagmill.models.base import Boxes, Prepared
from tagmill.tag_system.kinds import Kind
from tagmill.transforms.answers import check_boxes
from tagmill.transforms.candidates import gather
from tagmill.transforms.class_names import ClassNames
from tagmill.transforms.on_pixels import ModelConfig, ModelStage, run_on_pixels
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import Shared

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


class LocalizeConfig(ModelConfig):
    """Which kinds of tags have regions, and how much of what is found is kept as evidence."""

    kinds: list[Kind] = ["object"]
    box_floor: float = Field(0.1, ge=0, le=1)
    max_boxes: int = Field(20, ge=1)


class Localize(ModelStage[LocalizeConfig]):
    """A row for each box, best first within a tag; a tag that was asked for in vain has one, without box."""

    name = "localize"
    version = 1
    schema = SCHEMA

    def __init__(self, config: LocalizeConfig, shared: Shared) -> None:
        super().__init__(config, shared)
        self._classes: ClassNames | None = None

    def inputs(self) -> tuple[str, ...]:
        """An image is asked for its own candidates only, whatever source named them."""
        return ("ingest", "duplicates", "parse", "caption", "tag")

    def _meaning(self) -> dict[str, Any]:
        return {**super()._meaning(), "candidate_floor": self.shared.candidate_floor}

    def setup(self) -> None:
        """Load the localizer; a closed list of classes is mapped to tags."""
        super().setup()
        if self.model.classes is not None:
            self._classes = ClassNames(self.model.classes, self.shared.vocabulary)

    def process(self, inputs: Inputs) -> Output:
        """Look for the candidates of each image of one part."""
        prompts = {
            row: self._prompt(list(candidates))
            for row, candidates in gather(inputs, self.shared.vocabulary, self.shared.candidate_floor).items()
        }

        def call(batch: list[tuple[int, Prepared]]) -> list[Boxes]:
            names = [[name for name, _ in prompts[row]] for row, _ in batch]
            found: list[Boxes] = self.model.predict([one for _, one in batch], names)
            for boxes, asked in zip(found, names, strict=False):
                check_boxes(boxes, len(asked))
            return found

        asked = [row for row in inputs.rows if prompts[row]]
        run = run_on_pixels(self, inputs, asked, call)
        records = []
        for row, boxes in run.results.items():
            example = inputs.examples[row]
            records += self._records(row, prompts[row], boxes, (example["width"], example["height"]))
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), dead=run.dead, seconds=run.seconds)

    def _prompt(self, candidates: list[str]) -> list[tuple[str, str]]:
        """Pair each name that the model is asked for with its tag."""
        kinds = self.config.kinds
        tags = [tag for tag in map(self.shared.vocabulary.resolve, candidates) if tag and tag.kind in kinds]
        if self._classes is None:
            return [(tag.name, tag.name) for tag in tags]
        return [(name, tag.name) for tag in tags for name in self._classes.names_of(tag.name)]

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
