"""Stages of our own, as a config names them."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tagmill.tag_system.core.config import Config
from tagmill.transforms.parts import Inputs, Output
from tagmill.transforms.stage import PartStage

NOTHING = pa.schema([pa.field("row", pa.int32(), nullable=False)])


class UnwantedConfig(Config):
    """Which numbers are not wanted."""

    numbers: list[int] = [3, 4, 11]


class Unwanted(PartStage[UnwantedConfig]):
    """Drops the squares with certain numbers."""

    name = "unwanted"
    version = 1
    schema = NOTHING

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        if min(config[cls.name].numbers, default=0) < 0:
            raise ValueError("unwanted: numbers begin with 0")

    def inputs(self) -> tuple[str, ...]:
        return ("ingest",)

    def process(self, inputs: Inputs) -> Output:
        numbers = {row: json.loads(inputs.examples[row]["meta"])["number"] for row in inputs.rows}
        dropped = {row: "not_wanted" for row, number in numbers.items() if number in self.config.numbers}
        return Output(NOTHING.empty_table(), len(inputs.rows), dropped=dropped)


class Hasty(Unwanted):
    """Reads what comes after it."""

    name = "hasty"

    def inputs(self) -> tuple[str, ...]:
        return ("ingest", "clean")


class Nameless(PartStage[UnwantedConfig]):
    """Lacks what a stage has to say."""


class Usurper(Unwanted):
    """Has the name of another one."""

    name = "clean"


class Buggy(Unwanted):
    """Has a bug."""

    name = "buggy"

    def process(self, inputs: Inputs) -> Output:
        raise LookupError("a bug\nin a plug-in")
