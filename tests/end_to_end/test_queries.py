import json
import re
from pathlib import Path

import duckdb
import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "queries.md"

pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not beside the tests")


def queries() -> dict[str, str]:
    text = DOCUMENT.read_text()
    return dict(re.findall(r"^## (.+?)\n.*?```sql\n(.*?)```", text, re.MULTILINE | re.DOTALL))


def answer(question: str, run: Path, **names: str) -> list[dict[str, object]]:
    sql = queries()[question]

    def folder(match: re.Match[str]) -> str:
        last = sorted((run / match[1]).glob("_STAGE-*.json"))[-1]
        return json.loads(last.read_text())["generation"]

    sql = re.sub(r"(?<=RUN/)(\w+)/CURRENT", lambda match: f"{match[1]}/{folder(match)}", sql)
    for name, value in {"RUN": str(run), **names}.items():
        sql = sql.replace(name, value)
    result = duckdb.sql(sql)
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def test_every_documented_query_runs(squares_run: Path):
    assert len(queries()) >= 3
    for question in queries():
        answer(question, squares_run, KEY="squares/000001")


def test_decisions_on_one_image_are_those_of_its_squares(squares_run: Path):
    found = answer(
        "Why does this image have this tag, and why did that one go?", squares_run, KEY="squares/000001"
    )
    ingest = duckdb.sql(f"SELECT key, meta FROM '{squares_run}/ingest/*/*.parquet'").fetchall()
    truth = json.loads(dict(ingest)["squares/000001"])["truth"]
    assert {row["tag"] for row in found if row["verdict"] == "kept"} == set(truth)


def test_the_dead_are_counted_by_reason(squares_run: Path):
    found = answer("What died, where, and of what?", squares_run)
    dead = {(row["stage"], row["unit_and_reason"]): row["count"] for row in found}
    assert dead == {("ingest", "example/image_unreadable"): 1, ("ingest", "caption/caption_empty"): 1}


def test_the_caption_without_a_tag_is_found(squares_run: Path):
    found = answer("Which captions yielded no tag?", squares_run)
    assert [row["caption"] for row in found] == ["nothing to be seen here"]


def test_reports_add_up(squares_run: Path):
    stages = {
        row[0]: row[1:]
        for row in duckdb.sql(
            "SELECT stage, examples_in, examples_out, examples_dropped, examples_dead "
            f"FROM '{squares_run}/report/stages.parquet'"
        ).fetchall()
    }
    assert stages["ingest"] == (12, 11, 0, 1)
    assert stages["duplicates"] == (11, 10, 1, 0)
    assert stages["shards"] == (10, 10, 0, 0)
    for came, out, dropped, dead in stages.values():
        assert came == out + dropped + dead
    ((images, decided),) = duckdb.sql(
        f"SELECT sum(images), sum(proposed + not_proposed) FROM '{squares_run}/report/tags.parquet'"
    ).fetchall()
    ((rows,),) = duckdb.sql(f"SELECT count(*) FROM '{squares_run}/clean/*/*.parquet'").fetchall()
    assert images == decided == rows
