"""Caption: pixels -> one generated caption an image, and the tags parsed from it."""

from typing import Any

import pyarrow as pa

from tagmill.models.base import Prepared
from tagmill.tag_system.parser import DEFAULT_SPACY_MODEL, CaptionParser
from tagmill.transforms.answers import check_texts
from tagmill.transforms.on_pixels import ModelConfig, ModelStage, run_on_pixels
from tagmill.transforms.parse import MENTIONS, mention_records
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import Shared

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("mentions", MENTIONS, nullable=False),
    ]
)


class CaptionConfig(ModelConfig):
    """The captioner, and the English pipeline that its captions are parsed with."""

    spacy_model: str = DEFAULT_SPACY_MODEL


class Caption(ModelStage[CaptionConfig]):
    """A row for each image that lives."""

    name = "caption"
    version = 1
    schema = SCHEMA

    def __init__(self, config: CaptionConfig, shared: Shared) -> None:
        super().__init__(config, shared)
        self._parser = CaptionParser(shared.vocabulary, config.spacy_model)

    def inputs(self) -> tuple[str, ...]:
        """Pixels are ingest's; copies of an image are not captioned."""
        return ("ingest", "duplicates")

    def _meaning(self) -> dict[str, Any]:
        return {**super()._meaning(), "parser": self._parser.fingerprint()}

    def setup(self) -> None:
        """Load the captioner and the spaCy pipeline."""
        super().setup()
        self._parser.load()

    def process(self, inputs: Inputs) -> Output:
        """Caption the images of one part and parse what was written."""

        def call(batch: list[tuple[int, Prepared]]) -> list[str]:
            written: list[str] = self.model.predict([one for _, one in batch])
            check_texts(written)
            return written

        run = run_on_pixels(self, inputs, inputs.rows, call)
        parsed = self._parser.parse(list(run.results.values()))
        records = [
            {"row": row, "caption": caption, "mentions": mention_records(mentions)}
            for (row, caption), mentions in zip(run.results.items(), parsed, strict=True)
        ]
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), dead=run.dead, seconds=run.seconds)
