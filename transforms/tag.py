"""Tag: pixels -> the tagger's scores of its own classes, all over a floor."""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tagmill.models.base import Floats, Prepared
from tagmill.transforms.answers import check_classes, check_count, check_scores
from tagmill.transforms.on_pixels import PIXELS, ModelStage, WholeImageConfig, run_on_pixels
from tagmill.transforms.parts import Inputs, Output

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)


class TagConfig(WholeImageConfig):
    """`score_floor`: scores under it are not written, which loses them for every later threshold."""

    score_floor: float = Field(0.05, ge=0, le=1)


class TagStage(ModelStage[TagConfig]):
    """A row for each (image, class) that scores over the floor, in the order of the model's classes."""

    name = "tag"
    version = 2
    schema = SCHEMA
    slices = PIXELS

    def inputs(self) -> tuple[str, ...]:
        """Pixels are ingest's."""
        return ("ingest",)

    def check_model(self, model: Any) -> None:
        """Check the classes."""
        check_classes(model.classes)

    def process(self, inputs: Inputs) -> Output:
        """Score the images of one part."""
        classes = list(self.model.classes)

        def call(batch: list[tuple[int, Prepared]]) -> list[Floats]:
            found: list[Floats] = self.model.predict([one for _, one in batch])
            check_count(found, len(batch))
            for scores in found:
                check_scores(scores, len(classes))
            return found

        run = run_on_pixels(self, inputs, inputs.rows, call)
        records = [
            {"row": row, "name": classes[i], "score": float(scores[i])}
            for row, scores in run.results.items()
            for i in np.flatnonzero(np.asarray(scores, np.float32) >= self.config.score_floor)
        ]
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), dead=run.dead, seconds=run.seconds, notes=run.notes)
