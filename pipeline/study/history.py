"""What became of the datasets of a run, one after the other: numbers alone, which stay when `gc` has removed
the generations that they are of.

RUN/report/history.parquet  a row for each dataset that a report was made of, the latest last
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tagmill.pipeline.run_folder import REPORT, SEALS, RunFolder
from tagmill.pipeline.study.causes import VERSION, changes, made_by
from tagmill.pipeline.summary import summary_of
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.errors import DamageError
from tagmill.tag_system.core.text import dump_json
from tagmill.transforms import parquet
from tagmill.transforms.clean import Clean
from tagmill.transforms.ingest import Ingest

HISTORY = "history.parquet"

_COUNTS = pa.map_(pa.string(), pa.int64())
_WORDS = pa.map_(pa.string(), pa.string())

SUMS = ("proposed", "kept", "dropped", "uncertain", "not_proposed", "unknown")
"""What is summed over the report's tags: tags of images."""

HISTORY_SCHEMA = pa.schema(
    [
        pa.field("finished", pa.timestamp("ms"), nullable=False),
        pa.field("generation", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        *(
            pa.field(f"examples_{what}", pa.int64(), nullable=False)
            for what in ("in", "out", "dropped", "dead")
        ),
        *(pa.field(name, pa.int64(), nullable=False) for name in SUMS),
        pa.field("kept_by", _COUNTS, nullable=False),
        pa.field("rules", _COUNTS, nullable=False),
        pa.field("dead", _COUNTS, nullable=False),
        pa.field("models", _WORDS, nullable=False),
        pa.field("changed", _WORDS, nullable=False),
        pa.field("settings", pa.string(), nullable=False),
    ]
)
"""`finished` is UTC; `generation` is clean's; `content` is the digest that `status` prints; `examples_in`
came into ingest, `examples_out` left clean, the others are summed over the stages up to it; `dead` is by
unit and reason; `changed` names what made it otherwise than the row before, as `was -> now`; `settings` is
all that made it, as JSON."""

_log = logging.getLogger(__name__)


def with_history(
    run: RunFolder, stages: Sequence[Mapping[str, Any]], tags: Iterable[Mapping[str, Any]]
) -> bytes | None:
    """Give the bytes of the table; None while there is no row.

    These rows of the report's `stages` and `tags` are summed up in a row more, if the run is whole up to
    clean and the last row is of another dataset.
    """
    before, data = _earlier(run)
    if Clean.name not in run.finished():
        return data
    content = summary_of(run).content
    last = before.slice(max(0, before.num_rows - 1)).to_pylist()
    if last and last[0]["content"] == content:
        return data
    place = [row["stage"] for row in stages].index(Clean.name)
    row = {"content": content} | _row(stages[: place + 1], list(tags))
    was = json.loads(last[0]["settings"]) if last else None
    found = {} if was is None else changes(was, json.loads(row["settings"]))
    row["changed"] = {name: " -> ".join(map(_said, values)) for name, values in found.items()}
    row["finished"] = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    return parquet.table_bytes(pa.concat_tables([before, pa.Table.from_pylist([row], HISTORY_SCHEMA)]))


def _row(stages: Sequence[Mapping[str, Any]], tags: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up what is known of a dataset, by the rows of its stages up to clean, and of its tags."""
    by_name = {row["stage"]: row for row in stages}
    specs = {stage: json.loads(row["spec"]) | {VERSION: row["version"]} for stage, row in by_name.items()}
    maps = {
        "kept_by": _added(row["kept_by"] for row in tags),
        "rules": _added(row["rules"] for row in tags),
        "dead": _added(row["dead"] for row in stages),
    }
    numbers = {
        "examples_in": by_name[Ingest.name]["examples_in"],
        "examples_out": by_name[Clean.name]["examples_out"],
        "examples_dropped": sum(row["examples_dropped"] for row in stages),
        "examples_dead": sum(row["examples_dead"] for row in stages),
        **{name: sum(row[name] for row in tags) for name in SUMS},
    }
    settings = {stage: made_by(stage, spec) for stage, spec in specs.items()}
    return {
        "generation": by_name[Clean.name]["generation"],
        **numbers,
        **maps,
        "models": {stage: _said(spec["model"]) for stage, spec in specs.items() if "model" in spec},
        "settings": json.dumps(settings, sort_keys=True),
    }


def _added(maps: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in maps:
        found.update(one)
    return dict(sorted(found.items()))


def _said(value: object) -> str:
    return value if isinstance(value, str) else dump_json(value)


def _earlier(run: RunFolder) -> tuple[pa.Table, bytes | None]:
    """Read the table, and its bytes; one that was damaged is put aside, as it cannot be made again."""
    uri = run.path(REPORT, HISTORY)
    try:
        data = files.read_bytes(uri)
    except FileNotFoundError:
        return HISTORY_SCHEMA.empty_table(), None
    try:
        if parquet.seal(data) != _seal(run, uri):
            raise ValueError("it was changed since it was written")
        return pq.read_table(pa.BufferReader(data)).cast(HISTORY_SCHEMA), data
    except (ValueError, OSError, pa.ArrowException) as error:
        aside = f"{uri}.{time.time_ns()}.damaged"
        files.move(uri, aside)
        _log.warning("%s is damaged (%s); it begins anew, and what was there is now %s", uri, error, aside)
        return HISTORY_SCHEMA.empty_table(), None


def _seal(run: RunFolder, uri: str) -> str:
    """Give the seal that the table must have: the noted one, or else that in its own footer."""
    try:
        noted = notes.read(run.path(REPORT, SEALS)).get(HISTORY)
    except (FileNotFoundError, DamageError):
        noted = None
    return noted or parquet.read_tail(uri).seal
