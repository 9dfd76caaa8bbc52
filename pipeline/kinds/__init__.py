"""The kinds of stages, by the name that a stage's attribute `kind` has."""

from collections.abc import Mapping
from typing import Any

from tagmill.pipeline.kinds.base import Kind
from tagmill.pipeline.kinds.global_parts import GlobalParts
from tagmill.pipeline.kinds.parts import Parts
from tagmill.pipeline.kinds.shard_files import ShardFiles
from tagmill.pipeline.kinds.shard_parts import ShardParts
from tagmill.pipeline.kinds.sources import SourceFiles
from tagmill.pipeline.kinds.table import Table
from tagmill.transforms.stage import Stage

KINDS: Mapping[str, Kind[Any]] = {
    "sources": SourceFiles(),
    "parts": Parts(),
    "global_parts": GlobalParts(),
    "table": Table(),
    "shards": ShardFiles(),
    "shard_parts": ShardParts(),
}


def kind_of(stage: Stage[Any]) -> Kind[Any]:
    """Give the kind of a stage."""
    return KINDS[stage.kind]
