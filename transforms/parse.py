"""Parse: captions -> tags, with the place and kind of every mention."""

import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tagmill.tag_system.parser import DEFAULT_SPACY_MODEL, CaptionParser, Mode, TagMention
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import PartStage, Shared, StageConfig

MENTIONS = pa.list_(
    pa.struct(
        [
            pa.field("tag", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("surface", pa.string(), nullable=False),
            pa.field("start", pa.int32(), nullable=False),
            pa.field("end", pa.int32(), nullable=False),
        ]
    )
)
"""Tags mentioned in one caption; `start` and `end` count characters of the caption."""

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("caption_index", pa.int32(), nullable=False),
        pa.field("mentions", MENTIONS, nullable=False),
    ]
)


class ParseConfig(StageConfig):
    """What does the linguistics: an English pipeline, or with the mode `fast` a lexicon."""

    mode: Mode = "default"
    spacy_model: str = DEFAULT_SPACY_MODEL


def mention_records(mentions: Sequence[TagMention]) -> list[dict[str, Any]]:
    """Turn a caption's mentions into records of `MENTIONS`."""
    return [
        {"tag": m.tag, "kind": m.kind, "surface": m.surface, "start": m.start, "end": m.end} for m in mentions
    ]


class Parse(PartStage[ParseConfig]):
    """A row for each caption that lives; an example without captions has none and goes on."""

    name = "parse"
    version = 2
    schema = SCHEMA

    def __init__(self, config: ParseConfig, shared: Shared) -> None:
        super().__init__(config, shared)
        self._parser = CaptionParser(shared.vocabulary, config.spacy_model, config.mode)

    def inputs(self) -> tuple[str, ...]:
        """Captions are ingest's; copies of an image are not parsed."""
        return ("ingest", "duplicates")

    def _meaning(self) -> dict[str, Any]:
        return {
            **super()._meaning(),
            "parser": self._parser.fingerprint(),
            "vocabulary": self.shared.vocabulary.digest,
        }

    def setup(self) -> None:
        """Load the spaCy pipeline."""
        self._parser.load()

    def process(self, inputs: Inputs) -> Output:
        """Parse all captions of the part in one go."""
        captions = [
            (row, index, text)
            for row in inputs.rows
            for index, text in enumerate(inputs.examples[row]["captions"])
            if text is not None
        ]
        start = time.perf_counter()
        parsed = self._parser.parse([text for _, _, text in captions])
        seconds = {"model": time.perf_counter() - start}
        records = [
            {"row": row, "caption_index": index, "mentions": mention_records(mentions)}
            for (row, index, _), mentions in zip(captions, parsed, strict=True)
        ]
        table = pa.Table.from_pylist(records, SCHEMA)
        return Output(table, len(inputs.rows), len(captions), seconds=seconds)
