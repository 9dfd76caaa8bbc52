"""Tag: pixels -> the tagger's scores, every tag over a floor."""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tagmill.models.base import Floats, Prepared
from tagmill.transforms.answers import check_scores
from tagmill.transforms.class_names import ClassNames, summary
from tagmill.transforms.on_pixels import ModelConfig, ModelStage, run_on_pixels
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import Shared

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("tag", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)


class TagConfig(ModelConfig):
    """`score_floor`: scores under it are not written, which loses them for every later threshold."""

    score_floor: float = Field(0.05, ge=0, le=1)


class Tag(ModelStage[TagConfig]):
    """A row for each (image, tag) that scores over the floor."""

    name = "tag"
    version = 1
    schema = SCHEMA

    def __init__(self, config: TagConfig, shared: Shared) -> None:
        super().__init__(config, shared)
        self._classes: ClassNames | None = None

    def inputs(self) -> tuple[str, ...]:
        """Pixels are ingest's; copies of an image are not tagged."""
        return ("ingest", "duplicates")

    def setup(self) -> None:
        """Load the tagger and map its classes to tags."""
        super().setup()
        self._classes = ClassNames(self.model.classes, self.shared.vocabulary)

    def process(self, inputs: Inputs) -> Output:
        """Score the images of one part."""
        classes = self._classes
        if classes is None:
            raise RuntimeError("process() before setup()")

        def call(batch: list[tuple[int, Prepared]]) -> list[Floats]:
            found: list[Floats] = self.model.predict([one for _, one in batch])
            for scores in found:
                check_scores(scores, len(self.model.classes))
            return found

        run = run_on_pixels(self, inputs, inputs.rows, call)
        records = []
        for row, class_scores in run.results.items():
            scores = classes.tag_scores(class_scores)
            records += [
                {"row": row, "tag": classes.tags[i], "score": float(scores[i])}
                for i in np.flatnonzero(scores >= self.config.score_floor)
            ]
        notes: dict[str, Any] = {
            "scored": classes.mask(len(self.shared.vocabulary)),
            "unmapped_classes": len(classes.unmapped),
            "unmapped": summary(classes.unmapped),
        }
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), dead=run.dead, seconds=run.seconds, notes=notes)
