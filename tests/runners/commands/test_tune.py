import json

import pytest
import yaml

from runs import drive, squares_config
from sources import members
from tagmill.runners.commands.tune import is_held_out

STRICT = {"trust_given": False, "adaptive": {"weak_box": 1.0, "strong_box": 1.0}}
"""A policy that drops all that has a box."""


@pytest.fixture(scope="module")
def rows():
    """The truth about the squares, by key."""
    keys = {number: f"squares/{number:06d}" for number in range(24)}
    return {
        key: {"key": key, "tags": json.loads(members("x", number)["x.json"])["truth"]}
        for number, key in keys.items()
    }


@pytest.fixture
def truth(rows, tmp_path):
    return write(tmp_path / "truth.jsonl", rows.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run that is cleaned too strictly."""
    folder = tmp_path_factory.mktemp("strict")
    drive(squares_config(folder, clean={"policy": STRICT}))
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_policy_that_is_found_does_in_a_run_what_it_promises(tagmill, folder, rows, truth, tmp_path):
    code, out, _ = tagmill("tune", folder / "run", "--truth", truth)
    before, after = [line for line in out.splitlines() if line.startswith(("# before", "# after"))]
    policy = yaml.safe_load(out)["clean"]["policy"]
    assert code == 0
    assert policy["trust_given"] is False
    assert policy["adaptive"]["weak_box"] < 1
    held_out = write(tmp_path / "held.jsonl", [row for key, row in rows.items() if is_held_out(key)])

    def scored(run):
        _, out, _ = tagmill("score", run, "--truth", held_out, "--json")
        return json.loads(out)["steps"]["clean"]["kinds"]["all"]

    def said(score):
        counts = ", ".join(f"{score[name]} {name}" for name in ("right", "wrong", "missed"))
        measures = [f"{name} {score[name.lower()]:.3f}" for name in ("precision", "recall", "F1")]
        return f"{', '.join(measures)} ({counts})"

    strict = scored(folder / "run")
    drive(squares_config(tmp_path, clean={"policy": policy}))
    tuned = scored(tmp_path / "run")
    assert before.split(maxsplit=2)[2] == said(strict)
    assert after.split(maxsplit=2)[2] == said(tuned)
    assert tuned["f1"] > strict["f1"]


def test_a_precision_is_a_goal_and_a_rule_can_be_chosen(tagmill, folder, truth):
    _, out, _ = tagmill(
        "tune", folder / "run", "--truth", truth, "--goal", "precision=0.9", "--rule", "paper"
    )
    assert "images for precision=0.9;" in out
    policy = yaml.safe_load(out)["clean"]["policy"]
    assert policy["rule"] == "paper"
    assert "adaptive" not in policy


def test_a_precision_out_of_reach_is_said(tagmill, folder, rows, tmp_path):
    half_true = [row | {"tags": row["tags"][:1]} for row in rows.values()]
    truth = write(tmp_path / "half.jsonl", half_true)
    _, out, _ = tagmill("tune", folder / "run", "--truth", truth, "--goal", "precision=1")
    assert "# no constants that were tried reach this precision; these come nearest" in out.splitlines()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--goal", "precision=2"], "--goal precision=2: write f1, or precision=0.95"),
        (["--goal", "recall"], "--goal recall: write f1"),
        (["--goal", "precision=high"], "--goal precision=high: write f1"),
        (["--rule", "mine"], "--rule mine: a rule is one of adaptive, paper"),
        (["--kind", "thing"], "--kind thing: a kind is one of object"),
        (["--kind", "scene"], "labels too few images"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(tagmill, folder, truth, options, said):
    code, out, error = tagmill("tune", folder / "run", "--truth", truth, *options)
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1
