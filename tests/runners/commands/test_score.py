import json

import pytest

from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.example import decided_examples


@pytest.fixture
def labelled(finished, tmp_path):
    """A truth in JSON lines of what the run keeps, but for what each test changes in it; by keys."""
    rows = {}
    for example, decisions in decided_examples(RunFolder(str(finished / "run"))):
        kept = sorted(d["tag"] for d in decisions if d["verdict"] == "kept")
        rows[example["key"]] = {"key": example["key"], "tags": kept}
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_is_scored_by_step_kind_and_tag(tagmill, finished, labelled, tmp_path):
    rows = list(labelled.values())
    total = sum(len(row["tags"]) for row in rows)
    first = next(row for row in rows if len(row["tags"]) > 1)
    removed, *rest = first["tags"]
    first["tags"] = [f"{rest[0]} square", *rest[1:]]  # an alias
    other = next(row for row in rows if row is not first and removed not in row["tags"])
    other["tags"] = [*other["tags"], removed]
    truth = write(tmp_path / "truth.jsonl", rows)
    code, out, _ = tagmill("score", finished / "run", "--truth", truth, "--json")
    found = json.loads(out)
    assert (code, found["images"], found["unlabelled"]) == (0, len(rows), 0)
    kinds, tags = found["steps"]["clean"]["kinds"], found["steps"]["clean"]["tags"]
    assert kinds["all"] == kinds["object"]
    assert [kinds["all"][name] for name in ("right", "wrong", "missed")] == [total - 1, 1, 1]
    assert kinds["all"]["f1"] == pytest.approx((total - 1) / total)
    assert [tags[removed][name] for name in ("wrong", "missed")] == [1, 1]
    assert found["steps"]["parse"]["kinds"]["all"]["recall"] < kinds["all"]["recall"]
    code, out, _ = tagmill("score", finished / "run", "--truth", truth, "--per-tag")
    lines = [line.split() for line in out.splitlines()]
    (worst,) = [line for line in lines if line[:2] == [removed, "object"]]
    assert lines[lines.index(worst) - 1][0] == "tag"
    assert worst[-2:] == ["1", "1"]
    assert ["cleaned", "object"] in [line[:2] for line in lines]


def test_what_the_truth_does_not_say_is_not_scored(tagmill, finished, labelled, tmp_path):
    row = next(row for row in labelled.values() if len(row["tags"]) > 1)
    first, second, *_ = row["tags"]
    key = row["key"].partition("/")[2]
    truth = write(tmp_path / "truth.jsonl", [{"key": key, "tags": [first], "absent": [second]}])
    _, out, _ = tagmill("score", finished / "run", "--truth", truth, "--json")
    found = json.loads(out)
    assert (found["images"], found["unlabelled"]) == (1, len(labelled) - 1)
    cleaned = found["steps"]["clean"]
    assert [cleaned["kinds"]["all"][name] for name in ("right", "wrong", "missed")] == [1, 1, 0]
    assert cleaned["unscored"] == len(row["tags"]) - 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot read the truth"),
        ('{"key": "a"}', "line 1, a: tags and kinds should be lists of names"),
        ('{"key": "a", "tags": []}\n{"key": "a", "tags": []}', "lists a twice"),
        ('{"key": "a", "tags": [', "truth.jsonl:1 is not JSON"),
        ("[]", "truth.jsonl:1 is not an object"),
        ('{"key": "a", "tags": ["b"], "absent": "c"}', "absent should be a list of names"),
        ('{"key": "a", "tags": ["b"], "kinds": ["c"]}', "'c' is not a kind of tags"),
        ('{"key": "a", "tags": ["red"]}', "the truth has no image of"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tagmill, finished, tmp_path, text, said):
    truth = tmp_path / "truth.jsonl"
    if text is not None:
        truth.write_text(text)
    code, out, error = tagmill("score", finished / "run", "--truth", truth)
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1
