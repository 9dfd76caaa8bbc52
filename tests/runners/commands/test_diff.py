import json
from pathlib import Path

import pytest

from commands import call
from runs import current_folder, rows_of
from tagmill.pipeline.study import diff


def compare(a: Path | str, b: Path | str, *options: object, code: int = 1) -> dict:
    return json.loads(call("diff", a, b, "--json", *options, code=code)[0])


def test_two_generations_differ_in_the_policy_and_in_what_it_decides(compared, tmp_path):
    strict = rows_of(compared["strict"], "clean")
    truth = tmp_path / "truth.jsonl"
    keys = {row["part"]: {} for row in strict}
    for row in rows_of(compared["strict"], "ingest"):
        keys[row["part"]][row["row"]] = row["key"]
    true = {}
    for row in strict:
        true.setdefault(keys[row["part"]][row["row"]], []).append(row["tag"])
    missed = max(true)
    lines = [json.dumps({"key": key, "tags": tags if key != missed else []}) for key, tags in true.items()]
    truth.write_text("\n".join(lines))
    found = compare(compared["lax"], compared["strict"], "--examples", 2, "--truth", truth)
    assert found["made_otherwise"] == {
        "clean.policy.adaptive.strong_box": [0.45, 0.95],
        "clean.policy.adaptive.weak_box": [0.15, 0.90005],
    }
    assert [found["images"][name] for name in ("a", "b", "common", "came", "went", "changed")] == [
        8,
        8,
        8,
        0,
        0,
        0,
    ]
    (cell,) = found["verdicts"]
    assert (cell["a"], cell["b"]) == ("kept/regions_agree", "dropped/weak_box")
    assert cell["tags"] == cell["close"] == len(strict)
    assert len(cell["examples"]) == 2
    for tag, moves in found["tags"].items():
        count = sum(row["tag"] == tag for row in strict)
        assert [moves[name] for name in ("a", "b", "lost", "won")] == [count, 0, count, 0]
        assert moves["p"] == pytest.approx(min(1, 2 / 2**count))
        assert moves["noise"] == (count < 6)
    assert found["all_tags"]["lost"] == len(strict)
    wrong = sum(keys[row["part"]][row["row"]] == missed for row in strict)
    assert (found["truth"]["a"], found["truth"]["b"]) == (len(strict) - wrong, wrong)


def test_a_dataset_is_read_as_the_run_that_wrote_it(compared, monkeypatch):
    monkeypatch.setattr(diff, "AT_ONCE", 3)  # fewer than wait
    of_run = compare(compared["lax"], compared["strict"])
    of_shards = compare(compared["shards"], compared["strict"])  # no part has the name of a shard
    both_shards = compare(compared["shards"], current_folder(compared["strict"], "shards"))
    for other in (of_shards, both_shards):
        for name in ("images", "verdicts", "tags"):
            assert other[name] == of_run[name]
        assert other["made_otherwise"] == of_run["made_otherwise"]
    assert compare(compared["shards"], compared["lax"], code=0)["same"]


def test_images_that_came_went_or_changed_are_told_apart(compared):
    found = compare(compared["lax"], compared["other"], "--examples", 9)
    assert found["made_otherwise"] == {
        "duplicates": ["on", "off"],
        "localize": ["on", "off"],
        "ingest (part_size)": [5, 3],
        "candidates (asked).localizer": ["any text", None],
    }
    found = found["images"]
    assert [found[name] for name in ("a", "b", "common")] == [8, 8, 5]
    keys = {name: sorted(keys) for name, keys in found["keys"].items()}
    assert keys == {
        "came": ["squares/000008", "squares/000009"],
        "went": ["squares/000001", "squares/000002"],
        "changed": ["squares/000000"],
    }


def test_what_is_printed_says_it_in_words(tagmill, compared):
    code, out, _ = tagmill("diff", compared["lax"], compared["strict"])
    assert code == 1
    assert "clean.policy.adaptive.weak_box  0.15 -> 0.90005" in out
    assert "8 common, 0 came, 0 went" in out
    assert ["kept/regions_agree", "dropped/weak_box"] in [line.split()[:2] for line in out.splitlines()]
    assert "within the noise" in out
    code, out, _ = tagmill("diff", compared["strict"], compared["strict"])
    assert code == 0
    assert "made in the same way" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "is not a run folder, nor RUN@GENERATION, nor a dataset"),
        ("{strict}@zz", "no generations 'zz' of clean; it has "),
    ],
)
def test_what_cannot_be_compared_is_one_line(tagmill, compared, name, said):
    code, out, error = tagmill("diff", name.format(**compared), compared["strict"])
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1
