import json
import re
from pathlib import Path

import pytest

from commands import call, start
from runs import squares_config
from tagmill import open_run

DOCUMENT = Path(__file__).parents[2] / "docs" / "queries.md"

documented = pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents are not beside the tests")


def queries() -> dict[str, str]:
    sections = DOCUMENT.read_text().split("\n## ")[1:]
    found = {
        section.split("\n")[0]: re.findall(r"```sql\n(.*?)```", section, re.DOTALL) for section in sections
    }
    return {question: sql for question, (sql, *_) in ((q, s) for q, s in found.items() if s)}


def ask(run: Path, sql: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in call("sql", run, sql, "--json")[0].splitlines()]


def answer(question: str, run: Path, **names: str) -> list[dict[str, object]]:
    sql = queries()[question]
    for name, value in names.items():
        sql = sql.replace(name, value)
    return ask(run, sql)


@documented
def test_every_documented_query_runs(squares_run: Path):
    assert len(queries()) >= 20
    for question in queries():
        answer(question, squares_run, KEY="squares/000001", TAG="red")


@documented
def test_the_documented_queries_answer(squares_run: Path):
    found = answer(
        "Why does this image have this tag, and why did that one go?", squares_run, KEY="squares/000001"
    )
    (meta,) = ask(squares_run, "SELECT meta FROM ingest WHERE key = 'squares/000001'")
    truth = json.loads(meta["meta"])["truth"]
    assert {row["tag"] for row in found if row["verdict"] == "kept"} == set(truth)
    dead = answer("What died, where, and of what?", squares_run)
    assert [(row["stage"], row["unit"], row["reason"], row["count"]) for row in dead] == [
        ("ingest", "caption", "caption_empty", 1),
        ("ingest", "example", "image_unreadable", 1),
    ]
    found = answer("Which captions yielded no tag?", squares_run)
    assert [row["caption"] for row in found] == ["nothing to be seen here"]
    found = answer("Which images are duplicates, and of what?", squares_run)
    assert found == [{"key": "squares/copy", "reason": "same_image", "winner": "squares/000003"}]
    words = answer("Which words made this tag?", squares_run, TAG="red")
    assert {row["words"] for row in words} == {"red square"}
    assert all(row["adds_up"] for row in answer("Does what went in come out?", squares_run))


def test_the_tables_of_a_run_agree(squares_run: Path):
    stages = {row["stage"]: row for row in ask(squares_run, "FROM stages")}
    counts = {
        name: [row[f"examples_{what}"] for what in ("in", "out", "dropped", "dead")]
        for name, row in stages.items()
    }
    assert counts["ingest"] == [12, 11, 0, 1]
    assert counts["duplicates"] == [11, 10, 1, 0]
    assert counts["shards"] == [10, 10, 0, 0]
    ((sums),) = ask(squares_run, "SELECT sum(images) AS a, sum(proposed + not_proposed) AS b FROM tags")
    (rows,) = ask(squares_run, "SELECT count(*) AS n FROM clean")
    assert float(sums["a"]) == float(sums["b"]) == rows["n"]
    views = [row["name"] for row in ask(squares_run, "SHOW TABLES")]
    assert {*stages, "dead", "stages", "tags", "labels", "history"} == set(views)
    assert (
        ask(squares_run, "SELECT count(*) AS n FROM shards JOIN clean USING (key)")[0]["n"] == 2 * rows["n"]
    )


def test_an_answer_is_a_table_of_some_rows_or_csv_of_all(squares_run: Path):
    columns = "tag, box_score, distance > 9 AS far, captions"
    query = f"SELECT {columns} FROM clean JOIN ingest USING (part, row) ORDER BY ALL"
    rows = ask(squares_run, query)
    lines = call("sql", squares_run, query, "--rows", 2)[0].splitlines()
    assert lines[0].split() == ["tag", "box_score", "far", "captions"]
    assert lines[3] == f"{len(rows) - 2} more rows are left out; --rows N shows more, --csv or --json all"
    lines = call("sql", squares_run, query, "--csv")[0].splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[0] == "tag,box_score,far,captions"
    assert lines[1].startswith(f"{rows[0]['tag']},0.9,")
    table = open_run(squares_run).sql(query)
    assert table["tag"].to_pylist() == [row["tag"] for row in rows]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nothing FROM clean", 'Referenced column "nothing" not found'),
        ("FROM cleaned", "Table with name cleaned does not exist.*the run has candidates, clean,"),
        ("SELECT", "SELECT clause without selection list"),
        ("SELECT 1; SELECT 2", "the query is not one SELECT"),
        ("COPY (SELECT 1) TO '{run}/new.csv'", "the query is not one SELECT"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{run}/new.csv'", "the query is not one SELECT"),
        ("FROM '{run}/../config.yaml'", "config.yaml|only the tables of the run"),
        ("FROM read_csv('{run}/../config.yaml')", "only the tables of the run can be read"),
        ("FROM read_parquet('https://127.0.0.1:9/a.parquet')", "only the tables of the run can be read"),
        ("SELECT CAST(key AS INT) FROM clean", "Could not convert string"),
    ],
)
def test_a_query_that_cannot_be_answered_is_one_line(squares_run: Path, query: str, said: str):
    out, error = call("sql", squares_run, query.format(run=squares_run), code=2)
    assert out == ""
    (line,) = error.splitlines()
    assert re.search(said, line)
    assert not (squares_run / "new.csv").exists()


def test_a_run_that_was_not_finished_is_asked_for_what_is_there(tmp_path: Path):
    config = squares_config(tmp_path, {"a'[1].tar": (4, 0)}, run=str(tmp_path / "it's [half]"))
    run = tmp_path / "it's [half]"
    call("run", config, "--workers", 0, "--until", "candidates")
    for note in (run / "candidates").glob("_STAGE-*.json"):  # as if it had been stopped before its end
        note.unlink()
    assert ask(run, "SELECT count(DISTINCT key) AS n FROM candidates")[0]["n"] == 4
    assert ask(run, "FROM dead") == []
    _, error = call("sql", run, "FROM clean", code=2)
    assert "the run has candidates, dead, duplicates, ingest" in error


def test_who_has_read_enough_is_not_told_of_an_error(squares_run: Path):
    process = start("sql", squares_run, "FROM clean", "--csv")
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == ""
