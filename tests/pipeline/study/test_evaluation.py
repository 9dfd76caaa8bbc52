import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runs import drive
from sources import members, write_config, write_squares
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.evaluation import Score, StepScores, Truth, by_kind, evaluate, read_truth
from tagmill.tag_system.core.errors import ConfigError


def counted(*images: tuple[set[str], set[str]]) -> StepScores:
    scores = StepScores()
    for found, true in images:
        scores.count(found, true)
    return scores


def test_precision_recall_and_f1_over_all_images():
    score = counted(({"a", "b"}, {"a", "c"}), ({"a"}, {"a"})).micro()
    assert (score.right, score.wrong, score.missed) == (2, 1, 1)
    assert (score.precision, score.recall, score.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (Score().precision, Score().recall, Score().f1) == (0, 0, 0)


def test_every_class_counts_alike_in_the_macro_average():
    scores = counted(*[({"a"}, {"a"})] * 9, ({"c"}, {"b"}))
    assert scores.micro().f1 == pytest.approx(18 / 20)
    assert scores.macro_f1() == 1 / 2  # of a and b; the truth never has c
    assert scores.macro_f1({"b", "c"}) == 0


def test_kinds_share_the_counts_out():
    scores = counted(({"dog", "beach"}, {"dog", "red"}), ({"beach"}, {"beach"}))
    found = by_kind(scores, {"dog": "object", "beach": "scene", "red": "attribute"})
    assert list(found) == ["object", "scene", "attribute", "all"]
    assert found["object"] == (Score(1, 0, 0), 1.0)
    assert found["scene"] == (Score(1, 1, 0), pytest.approx(2 / 3))
    assert found["attribute"] == (Score(0, 0, 1), 0.0)
    assert found["all"][0] == Score(2, 1, 1)


def write_truth(path: Path, rows: list[dict[str, object]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def test_a_truth_is_matched_by_the_key_without_the_inputs_name(tmp_path):
    row = {"key": "a/1", "tags": ["dog", "beach"], "kinds": ["object", "scene"], "objects": []}
    truth = read_truth(write_truth(tmp_path / "truth.parquet", [row]))
    assert truth == Truth({"a/1": frozenset({"dog", "beach"})}, {"dog": "object", "beach": "scene"})
    assert truth.of({"key": "x/a/1"}) == {"dog", "beach"}
    assert truth.of({"key": "a/1"}) == {"dog", "beach"}
    assert truth.of({"key": "x/1"}) is None


def test_a_truth_that_cannot_be_read_says_what_is_expected(tmp_path):
    with pytest.raises(ConfigError, match="columns key and tags"):
        read_truth(write_truth(tmp_path / "a.parquet", [{"key": "a"}]))
    with pytest.raises(ConfigError, match=r"none\.parquet"):
        read_truth(str(tmp_path / "none.parquet"))


def test_a_run_is_scored_after_each_step(tmp_path):
    write_squares(tmp_path / "data" / "a.tar", 8)
    drive(write_config(tmp_path))
    true = {f"{i:06d}": json.loads(members("x", i)["x.json"])["truth"] for i in range(8)}
    kinds = dict.fromkeys(("red", "green", "blue", "yellow"), "object")
    rows = [
        {"key": key, "tags": [t for t in tags if t in kinds], "kinds": ["object" for t in tags if t in kinds]}
        for key, tags in true.items()
    ]
    truth = read_truth(write_truth(tmp_path / "truth.parquet", rows))
    scores = evaluate(RunFolder(str(tmp_path / "run")), truth.of, {name: name for name in kinds})
    purple = sum("purple" in tags for tags in true.values())
    assert purple
    for step in ("parse", "tag", "clean"):
        assert scores[step].micro() == Score(sum(len(row["tags"]) for row in rows), 0, 0)
        assert scores[step].unscored == purple
