"""Caption: pixels -> one generated caption an image."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tagmill.models.base import Prepared
from tagmill.transforms.answers import check_count, check_texts
from tagmill.transforms.on_pixels import PIXELS, ModelStage, WholeImageConfig, run_on_pixels
from tagmill.transforms.parts import Inputs, Output

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
    ]
)


class CaptionConfig(WholeImageConfig):
    """The captioner."""


class Caption(ModelStage[CaptionConfig]):
    """A row for each image that lives."""

    name = "caption"
    version = 2
    schema = SCHEMA
    slices = PIXELS

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check that what is written is read: a caption without its tags serves nobody."""
        if config[cls.name] and not config["parse"]:
            raise ValueError("caption: needs the stage parse, which is switched off, to find its tags")

    def inputs(self) -> tuple[str, ...]:
        """Pixels are ingest's."""
        return ("ingest",)

    def process(self, inputs: Inputs) -> Output:
        """Caption the images of one part."""

        def call(batch: list[tuple[int, Prepared]]) -> list[str]:
            written: list[str] = self.model.predict([one for _, one in batch])
            check_count(written, len(batch))
            check_texts(written)
            return written

        run = run_on_pixels(self, inputs, inputs.rows, call)
        records = [{"row": row, "caption": caption} for row, caption in run.results.items()]
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), dead=run.dead, seconds=run.seconds, notes=run.notes)
