"""Choose: which examples the dataset takes, by an expression of the config -> the others are dropped."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import pyarrow as pa

from tagmill.tag_system.core.config import Config
from tagmill.tag_system.licences import LicenceSource, licence_of, licence_spec
from tagmill.tag_system.where import WhereFilter
from tagmill.transforms.formats.base import licences_of
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import PartStage, RunContext, Shared

REASON = "where"
"""Why an example is dropped that the expression is not true of."""

KEY = "shards.where"
"""The key of a config that has the expression."""

SCHEMA = pa.schema([pa.field("row", pa.int32(), nullable=False)])
"""It adds nothing: its tables are empty."""


class ChooseConfig(Config):
    """`where` is the expression, see `where.WhereFilter`; the run's config has it as `shards.where`."""

    where: str


class Choose(PartStage[ChooseConfig]):
    """Drops the examples that the dataset does not take; there only if the config asks for it."""

    name = "choose"
    version = 1
    schema = SCHEMA

    def __init__(
        self, config: ChooseConfig, shared: Shared, licences: Mapping[str, LicenceSource] | None = None
    ) -> None:
        super().__init__(config, shared)
        self._licences = licences or {}
        self._filter: WhereFilter | None = None

    @classmethod
    def of_run(cls, run: RunContext) -> Self | None:
        """Make the stage where the shards take some examples alone."""
        where = run.config["shards"].where
        if where is None:
            return None
        return cls(ChooseConfig(where=where), run.shared, licences_of(run.config["inputs"]))

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """Check the expression. Raises ConfigError, and ModuleNotFoundError without DuckDB."""
        if config["shards"].where is not None:
            WhereFilter(config["shards"].where, KEY, is_lasting=True)

    def doubts(self, dropped: Mapping[str, int], examples: int) -> Iterator[str]:
        """Say that nothing is left."""
        if examples and sum(dropped.values()) == examples:
            yield f"{KEY} is true of none of {examples:,} examples, so the dataset is empty; NULL is not true"

    def inputs(self) -> tuple[str, ...]:
        """What a sample says."""
        return ("ingest", "caption", "clean")

    def _spec(self) -> dict[str, Any]:
        return {**super()._spec(), **licence_spec(self._licences)}

    def setup(self) -> None:
        """Open DuckDB."""
        self._filter = WhereFilter(self.config.where, KEY)

    def process(self, inputs: Inputs) -> Output:
        """Ask of each example of one part."""
        assert self._filter is not None  # by `setup`
        rows = list(inputs.rows)
        chosen = set(self._filter.chosen([self._said(inputs, row) for row in rows]))
        dropped = {row: REASON for index, row in enumerate(rows) if index not in chosen}
        return Output(SCHEMA.empty_table(), len(rows), dropped=dropped)

    def _said(self, inputs: Inputs, row: int) -> dict[str, Any]:
        """Give what `where.COLUMNS` says of an example."""
        example = inputs.examples[row]
        plain = ("key", "split", "width", "height", "orientation", "format", "sha256", "meta")
        given = [text for text in example["captions"] if text is not None]
        return {name: example[name] for name in plain} | {
            "captions": [*given, *(one["caption"] for one in inputs.of_row("caption", row))],
            "labels": [label["name"] for label in example["labels"]],
            "tags": [one["tag"] for one in inputs.of_row("clean", row) if one["verdict"] == "kept"],
            "license": licence_of(self._licences, example["key"], example["meta"]),
        }
