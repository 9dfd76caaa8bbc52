"""Parse: captions -> tags, with the place and kind of every mention."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa

from tagmill.tag_system.core.config import Config
from tagmill.tag_system.parser import DEFAULT_SPACY_MODEL, CaptionParser, Mode, TagMention
from tagmill.tag_system.spacy_reader import unused_modules
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import PartStage, RunContext, Shared

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
        pa.field("source", pa.string(), nullable=False),
        pa.field("caption_index", pa.int32(), nullable=False),
        pa.field("mentions", MENTIONS, nullable=False),
    ]
)
"""`source` is `given` or `generated`; `caption_index` counts within it."""


class ParseConfig(Config):
    """What does the linguistics: an English pipeline, or with the mode `fast` a lexicon."""

    mode: Mode = "default"
    spacy_model: str = DEFAULT_SPACY_MODEL


def mention_records(mentions: Sequence[TagMention]) -> list[dict[str, Any]]:
    """Turn a caption's mentions into records of `MENTIONS`."""
    return [
        {"tag": m.tag, "kind": m.kind, "surface": m.surface, "start": m.start, "end": m.end} for m in mentions
    ]


class Parse(PartStage[ParseConfig]):
    """A row for each caption that lives, given ones first; an example without captions goes on."""

    name = "parse"
    version = 3
    schema = SCHEMA
    slices = {"ingest": "captions"}

    def __init__(self, config: ParseConfig, shared: Shared, vocabulary: Vocabulary) -> None:
        super().__init__(config, shared)
        self._vocabulary = vocabulary.digest
        self._parser = CaptionParser(vocabulary, config.spacy_model, config.mode)

    @classmethod
    def of_run(cls, run: RunContext) -> Self | None:
        """Make the stage over the run's vocabulary."""
        config = run.config[cls.name]
        return None if config is None else cls(config, run.shared, run.vocabulary)

    @property
    def imports(self) -> Sequence[str]:
        """The parser's library, unless it is imported alone, or the mode does without."""
        return () if self.config.mode == "fast" or self.imports_alone else ("spacy",)

    @property
    def imports_alone(self) -> Mapping[str, Sequence[str]]:
        """The parser's library without that of neural nets, which the pipeline may have no use for."""
        unused = unused_modules(self.config.spacy_model)
        return {"spacy": unused} if unused and self.config.mode != "fast" else {}

    def inputs(self) -> tuple[str, ...]:
        """Given captions are ingest's, generated ones caption's."""
        return ("ingest", "caption")

    def _spec(self) -> dict[str, Any]:
        return {
            **super()._spec(),
            "parser": self._parser.fingerprint(),
            "vocabulary": self._vocabulary,
        }

    def setup(self) -> None:
        """Load the spaCy pipeline."""
        self._parser.load()

    def process(self, inputs: Inputs) -> Output:
        """Parse all captions of the part in one go."""
        captions = [caption for row in inputs.rows for caption in _captions(inputs, row)]
        start = time.perf_counter()
        parsed = self._parser.parse([text for *_, text in captions])
        seconds = {"model": time.perf_counter() - start}
        records = [
            {
                "row": row,
                "source": source,
                "caption_index": index,
                "mentions": mention_records(mentions),
            }
            for (row, source, index, _), mentions in zip(captions, parsed, strict=True)
        ]
        table = pa.Table.from_pylist(records, SCHEMA)
        given = sum(source == "given" for _, source, _, _ in captions)
        return Output(table, len(inputs.rows), given, seconds=seconds)


def _captions(inputs: Inputs, row: int) -> Iterator[tuple[int, str, int, str]]:
    """List the captions of one row: row, source, index, text."""
    for index, text in enumerate(inputs.examples[row]["captions"]):
        if text is not None:
            yield row, "given", index, text
    for index, record in enumerate(inputs.of_row("caption", row)):
        yield row, "generated", index, record["caption"]
