"""Ingests a source and tags it, and says what lived and what died of what: for children of bounded memory."""

import tempfile
from pathlib import Path
from typing import Any

from sources import write_squares
from stage_runs import Bench
from tagmill.runners.commands.demo import embedded
from tagmill.transforms import bitmaps
from tagmill.transforms.ingest import IngestConfig
from tagmill.transforms.tag import TagConfig, TagStage


def ingest_and_tag(folder: str, source: str, changes: dict[str, Any], ingest: dict[str, Any]) -> Any:
    """Run both stages over one source; gives what ingest and tag made of each row."""
    limits = IngestConfig(**ingest)
    bench = Bench(Path(folder), part_size=1000, threads=2, max_image_bytes=limits.max_image_bytes)
    bench.ingest(Path(source), limits, **changes)
    options = {"path": str(embedded() / "tagger"), "device": "cpu"}
    bench.run(TagStage(TagConfig(model="ram", options=options), bench.shared))
    return {stage: outcome(bench, stage) for stage in ("ingest", "tag")}


def outcome(bench: Bench, stage: str) -> dict[str, Any]:
    """Say of a stage which rows lived, and key, unit, reason and detail of each dead letter."""
    part = bench.part(stage)
    dead = [[d["key"], d["unit"], d["reason"], d["detail"]] for d in bench.dead(stage)]
    rows = bitmaps.numbers(part.header.rows & ~part.header.lost)
    return {"rows": rows, "dead": dead, "counts": part.header.counts.of("example")}


with tempfile.TemporaryDirectory() as _folder:  # what libraries load and reserve is no memory of a run
    ingest_and_tag(f"{_folder}/run", str(write_squares(Path(_folder, "a.tar"), 3)), {}, {})
