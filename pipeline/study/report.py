"""Report tables, derived from the parts of a finished run and never from a runner's metrics.

RUN/report/stages.parquet  a row a stage: what went in and out, what died of what, time, bytes, models
RUN/report/labels.parquet  a row a given label, see `labels`
RUN/report/tags.parquet    a row a tag: its sources, its verdicts by rule, its boxes and distances
RUN/report/near_duplicates.parquet  a row a cluster, see `near_report`
RUN/report/history.parquet  a row a dataset that the run ever was, see `history`
"""

import json
import logging
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tagmill.pipeline.current import current_records
from tagmill.pipeline.records import StageRecord
from tagmill.pipeline.run_folder import MADE_OF, REPORT, SEALS, RunFolder
from tagmill.pipeline.study.history import HISTORY, with_history
from tagmill.pipeline.study.labels import LABELS_SCHEMA, label_rows, warn_of_unmapped
from tagmill.pipeline.study.near_report import NEAR_TABLE, near_table
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import DamageError
from tagmill.tag_system.label_names import LabelNames
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import parquet, parts
from tagmill.transforms.candidates import Candidates
from tagmill.transforms.clean import Clean
from tagmill.transforms.cluster import Cluster
from tagmill.transforms.ingest import Ingest

_log = logging.getLogger(__name__)

COUNTS = pa.map_(pa.string(), pa.int64())

STAGES_SCHEMA = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("generation", pa.string(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),
        pa.field("parts", pa.int64(), nullable=False),
        pa.field("examples_in", pa.int64(), nullable=False),
        pa.field("examples_out", pa.int64(), nullable=False),
        pa.field("examples_dropped", pa.int64(), nullable=False),
        pa.field("examples_dead", pa.int64(), nullable=False),
        pa.field("captions_in", pa.int64(), nullable=False),
        pa.field("captions_out", pa.int64(), nullable=False),
        pa.field("captions_dead", pa.int64(), nullable=False),
        pa.field("dropped", COUNTS, nullable=False),
        pa.field("dead", COUNTS, nullable=False),
        pa.field("seconds", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("batches", COUNTS, nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("spec", pa.string(), nullable=False),
        pa.field("libraries", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)
"""`seconds` are summed over the parts, or over the workers that made all parts at once, by what they were
spent on, but for `wall`, the length of the stage's last job as the driver saw it; `batches` says how full
those of its model were, see `batches.Fill`; `dead` counts by unit and reason."""

TAGS_SCHEMA = pa.schema(
    [
        pa.field("tag", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("given", pa.int64(), nullable=False),
        pa.field("parsed", pa.int64(), nullable=False),
        pa.field("generated", pa.int64(), nullable=False),
        pa.field("tagger", pa.int64(), nullable=False),
        pa.field("unknown", pa.int64(), nullable=False),
        pa.field("proposed", pa.int64(), nullable=False),
        pa.field("kept", pa.int64(), nullable=False),
        pa.field("dropped", pa.int64(), nullable=False),
        pa.field("uncertain", pa.int64(), nullable=False),
        pa.field("not_proposed", pa.int64(), nullable=False),
        pa.field("kept_by", COUNTS, nullable=False),
        pa.field("rules", COUNTS, nullable=False),
        pa.field("boxes", pa.int64(), nullable=False),
        pa.field("k", pa.int32()),
        pa.field("spread", pa.float32()),
        pa.field("distance_quantiles", pa.list_(pa.float32())),
    ]
)
"""`given`, `parsed`, `generated`, `tagger` count images of which the tag is a candidate by that source (the
tagger from `candidate_floor` on), `unknown` those of which the tagger says nothing, as it has no class for
the tag. images = proposed + not_proposed, proposed = kept + dropped + uncertain: what is under every source's
threshold is in none of the three, and never unknown, as a label or a caption names what the tagger does not.
`kept_by` counts what is kept by what vouches for it (`decisions.Basis`), `rules` decisions as `verdict/rule`;
`distance_quantiles` are the 0th, 1st, ... 100th percentile of the cluster table's distances."""

VERSION = 3
"""Raised when the tables of the same run say something else."""

STAGES, TAGS, LABELS = "stages.parquet", "tags.parquet", "labels.parquet"

SITE, SITE_MARK = "site", "tagmill-site.txt"
"""The folder of the site in that of the report, and the file that tells it from anybody's own folder."""

READ = {Ingest.name, Candidates.name, Cluster.name, Clean.name}
"""Stages whose tables are counted; records of others are not kept in memory."""

BY = ("tag", "verdict", "rule", "basis")
KEPT_BY = "kept by "
COUNTED = ("images", "given", "parsed", "generated", "tagger", "unknown", "boxes")
"""What decisions are counted by, how counts of what vouches for kept ones begin, and what is counted."""


def write_report(run: RunFolder, vocabulary: Vocabulary) -> None:
    """Derive all tables from the current generations of a finished run, unless they are there."""
    made_of, stages, names = _state(run, vocabulary)
    if _is_there(run, made_of):
        warn_of_unmapped(parquet.read_table(run.path(REPORT, LABELS)).to_pylist(), run.path(REPORT, LABELS))
        return
    if files.exists(run.path(REPORT, SITE, SITE_MARK)):
        _log.info("removing %s, which shows the run as it was", run.path(REPORT, SITE))
        files.remove(run.path(REPORT, SITE))
    tables = _tables(run, vocabulary, stages, names)
    history = with_history(run, stages, tables[TAGS].to_pylist(maps_as_pydicts="strict"))
    if NEAR_TABLE not in tables:
        files.remove(run.path(REPORT, NEAR_TABLE))
    written = {name: parquet.table_bytes(table) for name, table in tables.items()}
    if history is not None:
        written[HISTORY] = history
    for name, data in written.items():
        files.replace_bytes(run.path(REPORT, name), data)
    seals = {name: parquet.seal(data) for name, data in written.items()}
    files.replace_bytes(run.path(REPORT, SEALS), notes.dump(seals | {MADE_OF: made_of}))
    warn_of_unmapped(tables[LABELS].to_pylist(), run.path(REPORT, LABELS))


def report_tables(run: RunFolder, vocabulary: Vocabulary) -> dict[str, pa.Table]:
    """Give the report's tables by the names of their files, whether the run was finished or not.

    They are read where they are there, and made in memory elsewhere; a run without ingest has none.
    """
    made_of, stages, names = _state(run, vocabulary)
    if not stages:
        return {}
    if _is_there(run, made_of):
        found = (STAGES, TAGS, LABELS, NEAR_TABLE)
        there = [name for name in found if files.exists(run.path(REPORT, name))]
        return {name: parquet.read_table(run.path(REPORT, name)) for name in there}
    return _tables(run, vocabulary, stages, names)


def _state(run: RunFolder, vocabulary: Vocabulary) -> tuple[str, list[dict[str, Any]], LabelNames]:
    """Sum up the stages that are current; gives a digest of what the tables are made of, and their rows."""
    with ThreadPoolExecutor(files.THREADS) as pool:
        found = [(_name(record), pool.submit(stage_row, run, record)) for record in current_records(run)]
    rows = [row.result() for _, row in found]
    names = LabelNames.load(vocabulary, (run.saved_config() or {}).get("label_map"))
    made_of = value_digest([VERSION, vocabulary.digest, names.digest, rows, [name for name, _ in found]])
    return made_of, rows, names


def _tables(
    run: RunFolder, vocabulary: Vocabulary, stages: list[dict[str, Any]], names: LabelNames
) -> dict[str, pa.Table]:
    records = {record.stage: record for record in current_records(run) if record.stage in READ}
    tables = {
        STAGES: pa.Table.from_pylist(stages, STAGES_SCHEMA),
        TAGS: pa.Table.from_pylist(_tag_rows(run, records, vocabulary), TAGS_SCHEMA),
        LABELS: pa.Table.from_pylist(label_rows(run, records[Ingest.name], names), LABELS_SCHEMA),
    }
    near = near_table(run)
    return tables if near is None else tables | {NEAR_TABLE: near}


def _name(record: StageRecord) -> list[str]:
    """Name a record, which is written once, under a name of its own."""
    return [record.stage, record.generation, record.rows.rpartition("/")[2], record.rows_seal]


def _is_there(run: RunFolder, made_of: str) -> bool:
    """Tell whether the report is there, whole, and was made of just this."""
    try:
        seals = notes.read(run.path(REPORT, SEALS))
        is_same = seals.pop(MADE_OF, "") == made_of
        return is_same and all(
            parquet.seal(files.read_bytes(run.path(REPORT, name))) == seal for name, seal in seals.items()
        )
    except (FileNotFoundError, ValueError, DamageError):
        return False


def stage_row(run: RunFolder, record: StageRecord) -> dict[str, Any]:
    """Sum up a stage: a row of the report's table `stages`."""
    folder = run.generation(record.stage, record.generation)
    dropped: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    batches: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for part in record.parts.values():
        dropped.update(part.counts.dropped)
        dead.update({f"example/{reason}": count for reason, count in part.counts.dead.items()})
        dead.update({f"caption/{reason}": count for reason, count in part.counts.dead_captions.items()})
        dead.update({f"field/{reason}": count for reason, count in part.lost_fields.items()})
        batches.update(part.notes.get("batches", {}))
        for name, value in part.seconds.items():
            seconds[name] += value
    spent = {**seconds, **record.more.get("seconds", {}), "wall": record.more.get("wall", 0.0)}
    return {
        "stage": record.stage,
        "generation": record.generation,
        "version": record.version,
        "parts": len(record.parts),
        **{f"examples_{what}": record.count("example", what) for what in ("in", "out", "dropped", "dead")},
        **{f"captions_{what}": record.count("caption", what) for what in ("in", "out", "dead")},
        "dropped": dict(dropped),
        "dead": dict(dead),
        "seconds": {name: round(value, 4) for name, value in spent.items()},
        "batches": dict(batches),
        "bytes": files.folder_size(folder),
        "spec": json.dumps(record.spec | {"config": record.settings}, sort_keys=True),
        "libraries": record.libraries,
    }


def _tag_rows(
    run: RunFolder, records: dict[str, StageRecord], vocabulary: Vocabulary
) -> list[dict[str, Any]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    if Clean.name not in records:  # a run that ends before it
        return []
    floor = records[Candidates.name].settings["candidate_floor"]
    for row in _tallied(run, records[Clean.name], floor).to_pylist():
        counts = found[row["tag"]]
        counts.update({name: row[name] for name in COUNTED})
        images = row["images"]
        counts["not_proposed" if row["rule"] == "not_proposed" else row["verdict"]] += images
        counts[f"{row['verdict']}/{row['rule']}"] += images
        if row["verdict"] == "kept":
            counts[f"{KEPT_BY}{row['basis']}"] += images
    clusters = _clusters(run, records.get(Cluster.name))
    return [
        _tag_row(tag.name, tag.kind, found[tag.name], clusters.get(tag.name, {}))
        for tag in vocabulary
        if tag.name in found
    ]


def _tallied(run: RunFolder, record: StageRecord, floor: float) -> pa.Table:
    """Count the decisions of all parts by `BY`, a few parts in memory at a time."""
    folder = run.generation(Clean.name, record.generation)
    uris = [parts.part_uri(folder, name) for name in record.parts]
    fields = [pa.field(name, pa.string()) for name in BY] + [pa.field(name, pa.int64()) for name in COUNTED]
    total = pa.schema(fields).empty_table()
    with ThreadPoolExecutor(files.THREADS) as pool:
        for start in range(0, len(uris), 4 * files.THREADS):
            some = pool.map(lambda uri: _tally(uri, floor), uris[start : start + 4 * files.THREADS])
            total = _summed(pa.concat_tables([total, *some]))
    return total


def _tally(uri: str, candidate_floor: float) -> pa.Table:
    """Count the decisions of one part."""
    columns = [*BY, "given", "parsed", "generated", "tagger", "boxes"]
    table = parts.read_part(uri, columns).table.replace_schema_metadata()
    counts = {name: pc.greater(table[name], 0) for name in ("given", "parsed", "generated")}
    counts["tagger"] = pc.fill_null(pc.greater_equal(table["tagger"], candidate_floor), False)
    counts["unknown"] = pc.is_null(table["tagger"])
    counts |= {"images": pa.array([1] * table.num_rows, pa.int64()), "boxes": table["boxes"]}
    numbers = {name: pc.cast(counts[name], pa.int64()) for name in COUNTED}
    return _summed(pa.table({name: table[name] for name in BY} | numbers))


def _summed(table: pa.Table) -> pa.Table:
    """Add up the counts of what is equal by `BY`."""
    sums = table.group_by(list(BY), use_threads=False).aggregate([(name, "sum") for name in COUNTED])
    return pa.table({name: sums[name] for name in BY} | {name: sums[f"{name}_sum"] for name in COUNTED})


def _tag_row(tag: str, kind: str, counts: Counter[str], cluster: dict[str, Any]) -> dict[str, Any]:
    decided = ("kept", "dropped", "uncertain", "not_proposed")
    said = sorted(counts.items())
    return {
        "tag": tag,
        "kind": kind,
        **{name: counts[name] for name in (*COUNTED, *decided)},
        "proposed": counts["kept"] + counts["dropped"] + counts["uncertain"],
        "kept_by": {name.removeprefix(KEPT_BY): n for name, n in said if name.startswith(KEPT_BY)},
        "rules": {name: count for name, count in said if "/" in name},
        "k": cluster.get("k"),
        "spread": cluster.get("spread"),
        "distance_quantiles": cluster.get("distance_quantiles"),
    }


def _clusters(run: RunFolder, record: StageRecord | None) -> dict[str, dict[str, Any]]:
    if record is None:
        return {}
    uri = files.join(run.generation(record.stage, record.generation), record.more["table"])
    table = parquet.read_table(uri, ["tag", "k", "spread", "distances"])
    rows = zip(table.drop_columns("distances").to_pylist(), table["distances"], strict=True)
    return {row["tag"]: row | {"distance_quantiles": _percentiles(some.values)} for row, some in rows}


def _percentiles(distances: pa.Array) -> list[float]:
    """Give the 0th, 1st, ... 100th percentile of distances; none of none."""
    if not len(distances):
        return []
    found: list[float] = np.quantile(distances.to_numpy(), np.linspace(0, 1, 101)).tolist()
    return found
