"""The numbers of a run's datasets stay when the generations that they are of are gone."""

import logging
from collections import Counter

import pyarrow.parquet as pq

from runs import current_folder, damaged, drive, squares_config, tagmill
from sources import write_squares
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.report import write_report
from tagmill.tag_system.vocabulary import Vocabulary


def test_what_a_run_was_stays_after_gc(tmp_path, caplog):
    config = squares_config(tmp_path, {"a.tar": (6, 0)})
    run, uri = tmp_path / "run", tmp_path / "run" / "report" / "history.parquet"

    def history() -> list[dict[str, object]]:
        return pq.read_table(uri).to_pylist(maps_as_pydicts="strict")

    drive(config)
    drive(config, "clean.policy.adaptive.weak_box=0.95")
    whole = uri.read_bytes()
    drive(config, "clean.policy.adaptive.weak_box=0.95")
    drive(config, "clean.policy.adaptive.weak_box=0.95", until="tag")
    assert uri.read_bytes() == whole  # nothing came of these
    write_squares(tmp_path / "data" / "b.tar", 4, 20)
    drive(config, "clean.policy.adaptive.weak_box=0.95")
    tagmill("gc", run)
    assert len(list((run / "clean").glob("*/"))) == 1
    assert damaged(run) == []

    rows = history()
    assert [row["changed"] for row in rows] == [
        {},
        {"clean.policy.adaptive.weak_box": "0.15 -> 0.95"},
        {},
    ]
    assert [row["examples_in"] for row in rows] == [6, 6, 10]
    assert rows[0]["generation"] != rows[1]["generation"] == current_folder(run, "clean").name
    assert rows[1]["kept"] < rows[0]["kept"]
    assert rows[0]["finished"] <= rows[1]["finished"] <= rows[2]["finished"]
    tags = pq.read_table(run / "report" / "tags.parquet").to_pylist(maps_as_pydicts="strict")
    for name in ("proposed", "kept", "dropped", "uncertain", "not_proposed", "unknown"):
        assert rows[2][name] == sum(row[name] for row in tags)
    for name in ("kept_by", "rules"):
        assert rows[2][name] == dict(sum((Counter(row[name]) for row in tags), Counter()))
    assert rows[2]["content"] in tagmill("status", run).stdout
    assert set(rows[2]["models"]) == {"tag", "localize", "embed"}
    assert "squares/" not in str(rows)

    # Tables that are made again leave it as it is; one that was damaged is not taken for what was.
    whole = uri.read_bytes()
    vocabulary = Vocabulary.load(str(tmp_path / "vocabulary.tsv"))
    (run / "report" / "tags.parquet").unlink()
    write_report(RunFolder(str(run)), vocabulary)
    assert uri.read_bytes() == whole
    uri.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    (problem,) = damaged(run)
    assert "history.parquet does not match" in problem
    with caplog.at_level(logging.WARNING):
        write_report(RunFolder(str(run)), vocabulary)
    assert "history.parquet is damaged" in caplog.text
    assert [row["kept"] for row in history()] == [rows[2]["kept"]]
    assert len(list(uri.parent.glob("history.parquet.*.damaged"))) == 1
    assert damaged(run) == []
