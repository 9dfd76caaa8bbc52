"""The report against numbers that DuckDB counts in the parts themselves."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runs import current_folder, current_record
from tagmill.pipeline.study.report import STAGES_SCHEMA, TAGS_SCHEMA

PART_STAGES = [
    "ingest",
    "duplicates",
    "caption",
    "parse",
    "tag",
    "candidates",
    "localize",
    "embed",
    "clean",
]


@pytest.fixture(scope="module")
def run(finished: Path) -> Path:
    return finished / "run"


def rows(sql: str) -> list[tuple[Any, ...]]:
    return duckdb.sql(sql).fetchall()


def report(run: Path, name: str) -> dict[str, dict[str, Any]]:
    table = pq.read_table(run / "report" / f"{name}.parquet")
    return {row[table.column_names[0]]: row for row in table.to_pylist(maps_as_pydicts="strict")}


@pytest.mark.parametrize(("name", "schema"), [("stages", STAGES_SCHEMA), ("tags", TAGS_SCHEMA)])
def test_the_files_have_the_schema_of_the_code(run, name, schema: pa.Schema):
    found = pq.read_schema(run / "report" / f"{name}.parquet")
    assert [(f.name, f.type, f.nullable) for f in found] == [(f.name, f.type, f.nullable) for f in schema]


def test_examples_are_counted_as_they_lie_in_the_parts(run):
    stages = report(run, "stages")
    assert list(stages) == [*PART_STAGES[:8], "cluster", "clean", "shards"]
    ((alive,),) = rows(f"SELECT count(*) FROM '{current_folder(run, 'ingest')}/*.parquet'")
    ((losers,),) = rows(f"SELECT count(*) FROM '{current_folder(run, 'duplicates')}/*.parquet'")
    ((dead,),) = rows(
        f"SELECT count(*) FROM '{current_folder(run, 'ingest')}/dead/*.parquet' WHERE unit = 'example'"
    )
    assert (alive, losers, dead) == (23, 1, 1)
    ingest = stages["ingest"]
    assert (ingest["examples_in"], ingest["examples_out"], ingest["examples_dead"]) == (
        alive + dead,
        alive,
        dead,
    )
    assert ingest["dead"] == {"example/image_truncated": 1, "caption/caption_empty": 1} or ingest["dead"] == {
        "example/image_unreadable": 1,
        "caption/caption_empty": 1,
    }
    duplicates = stages["duplicates"]
    assert (duplicates["examples_in"], duplicates["examples_dropped"]) == (alive, losers)
    assert duplicates["dropped"] == {"same_image": losers}
    for stage in (*PART_STAGES[2:], "shards"):
        assert (stages[stage]["examples_in"], stages[stage]["examples_out"]) == (alive - losers,) * 2


def test_captions_are_counted_as_they_lie_in_the_parts(run):
    stages = report(run, "stages")
    folder = current_folder(run, "ingest")
    ((given, holes),) = rows(
        "SELECT count(*), count(*) FILTER (caption IS NULL) FROM "
        f"(SELECT unnest(captions) AS caption FROM '{folder}/*.parquet')"
    )
    parts = f"'{current_folder(run, 'parse')}/*.parquet'"
    ((parsed,),) = rows(f"SELECT count(*) FROM {parts} WHERE source = 'given'")
    ingest, parse = stages["ingest"], stages["parse"]
    assert (ingest["captions_in"], ingest["captions_dead"]) == (given, holes)
    assert ingest["captions_out"] == given - holes
    assert parse["captions_in"] == parse["captions_out"] == parsed


def test_bytes_parts_meanings_and_times_are_those_of_the_generation(run):
    for stage, row in report(run, "stages").items():
        record, folder = current_record(run, stage), current_folder(run, stage)
        assert row["generation"] == folder.name == record.generation
        assert row["parts"] == len(record.parts)
        assert row["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert json.loads(row["spec"]) == record.spec | {"config": record.settings}
        assert row["libraries"]["apache-beam"]
        assert row["seconds"]["total"] > 0
        steps = {"duplicates": ["read", "settle", "write"], "cluster": ["count", "sample", "fit"]}
        if stage in steps:
            assert sum(row["seconds"][step] for step in steps[stage]) == pytest.approx(
                row["seconds"]["total"]
            )


def test_tags_are_counted_as_they_were_decided(run):
    tags = report(run, "tags")
    clean = f"'{current_folder(run, 'clean')}/*.parquet'"
    counted = rows(
        "SELECT tag, any_value(kind), count(*), count(*) FILTER (given > 0), count(*) FILTER (parsed > 0), "
        "count(*) FILTER (generated > 0), count(*) FILTER (tagger >= 0.3), "
        "count(*) FILTER (verdict = 'kept'), count(*) FILTER (verdict = 'dropped'), "
        f"count(*) FILTER (verdict = 'uncertain'), sum(boxes) FROM {clean} GROUP BY tag"
    )
    names = (
        "kind",
        "images",
        "given",
        "parsed",
        "generated",
        "tagger",
        "kept",
        "dropped",
        "uncertain",
        "boxes",
    )
    assert {tag: {name: row[name] for name in names} for tag, row in tags.items()} == {
        tag: dict(zip(names, values, strict=True)) for tag, *values in counted
    }
    rules = rows(f"SELECT tag, verdict || '/' || rule, count(*) FROM {clean} GROUP BY ALL")
    for tag, row in tags.items():
        assert row["rules"] == {rule: count for of_tag, rule, count in rules if of_tag == tag}


def test_clusters_of_tags_are_those_of_the_cluster_table(run):
    table = pq.read_table(current_folder(run, "cluster") / "clusters.parquet").to_pylist()
    ((regions,),) = rows(f"SELECT count(*) FROM '{current_folder(run, 'embed')}/*.parquet'")
    assert sum(row["regions"] for row in table) == regions
    tags = report(run, "tags")
    assert {tag for tag, row in tags.items() if row["k"] is not None} == {row["tag"] for row in table}
    for row in table:
        found = tags[row["tag"]]
        assert (found["k"], found["spread"], found["distance_quantiles"]) == (
            row["k"],
            row["spread"],
            pytest.approx(np.quantile(row["distances"], np.linspace(0, 1, 101))) if row["k"] else [],
        )


def test_the_tag_that_the_picture_does_not_show_is_not_kept(run):
    ((verdict, rule, asked),) = rows(
        f"SELECT d.verdict, d.rule, d.asked "
        f"FROM read_parquet('{current_folder(run, 'clean')}/*.parquet', filename = 'file') AS d "
        f"JOIN read_parquet('{current_folder(run, 'ingest')}/*.parquet', filename = 'file') AS i "
        "ON parse_filename(d.file) = parse_filename(i.file) AND d.row = i.row "
        "WHERE i.key = 'squares/wrong' AND d.tag = 'yellow'"
    )
    assert (verdict, rule, asked) == ("uncertain", "no_box", True)
