"""Fields that a config names and a source lacks stop a run before a model is asked; by the command line."""

import json

import pyarrow.parquet as pq
import pytest

from commands import call
from runs import damaged, rows_of
from sources import members, write_config, write_tar

OFF = {"parse": None, "tag": None, "localize": None, "embed": None, "cluster": None}


@pytest.fixture
def config(tmp_path):
    """A config over three images whose words stand in a field `title`; the arguments are of its input."""
    lines = []
    for number in range(3):
        name = f"{number}.png"
        (tmp_path / name).write_bytes(members("k", number)["k.png"])
        lines.append({"file_name": name, "width": 96, "title": f"picture {number}", "tags": ["red"]})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def write(**changes):
        source = {"name": "photos", "format": "jsonl", "path": str(tmp_path / "a.jsonl")}
        return write_config(tmp_path, inputs=[source | changes], **OFF)

    return write


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"captions": ["text", "words"]},
            "input photos: no example has `text` or `words`, which `captions` names; "
            "saw `file_name`, `tags`, `title`, `width`; set `captions: [title]`; "
            "`captions: []` says that there are none",
        ),
        (
            {"captions": ["title"], "labels": "objects"},
            "input photos: no example has `objects`, which `labels` names; "
            "saw `file_name`, `tags`, `title`, `width`; set `labels: tags`",
        ),
    ],
    ids=["captions", "labels"],
)
def test_a_named_field_that_is_not_there_stops_the_run_each_time(config, tmp_path, changes, line):
    path = config(**changes)
    for _ in range(2):
        assert line in call("run", path, "--workers", 0, code=2)[1]
    assert not (tmp_path / "run" / "duplicates").exists()


def test_the_line_that_a_warning_gives_is_the_remedy(config, tmp_path, caplog):
    call("run", config(), "--workers", 0)
    (warning,) = (line for line in caplog.messages if "no caption field" in line)
    assert warning.startswith(
        "input photos: no caption field found; saw `file_name`, `tags`, `title`, `width`"
    )
    caplog.clear()
    assert "set `captions: [title]`" in warning
    call("run", config(captions=["title"], labels="tags"), "--workers", 0)
    assert not [line for line in caplog.messages if "caption field" in line]
    assert [row["captions"] for row in rows_of(tmp_path / "run", "ingest")] == [
        [f"picture {n}"] for n in range(3)
    ]
    assert {row["meta"] for row in rows_of(tmp_path / "run", "ingest")} == {'{"width": 96}'}


def test_to_say_that_there_are_no_captions_is_enough(config, caplog):
    call("run", config(captions=[]), "--workers", 0)
    assert not [line for line in caplog.messages if "caption field" in line]


def test_bad_labels_are_told_by_status_report_and_inspect_and_too_many_stop_the_run(tmp_path):
    given = [["red", 7], ["blue", {"name": "red", "box": "odd"}], ["red"]]
    contents = []
    for number, labels in enumerate(given):
        contents += [(f"{number}.png", members("k", number)["k.png"]), (f"{number}.txt", b"a red square")]
        contents += [(f"{number}.json", json.dumps({"labels": labels, "split": "odd"}).encode())]
    path = str(write_tar(tmp_path / "a.tar", contents))
    source = {"name": "x", "format": "webdataset", "path": path}
    call("run", write_config(tmp_path, inputs=[source], max_dead_fraction=0.34, **OFF), "--workers", 0)
    run = tmp_path / "run"
    status = " ".join(call("status", run)[0].split())
    assert (
        "dead fields of ingest: 2 are label_invalid, such as x/0: 1 of 2 labels: not a label: '7'" in status
    )
    assert "dead fields of ingest: 3 are split_invalid" in status
    row = pq.read_table(run / "report" / "stages.parquet").to_pylist()[0]
    assert dict(row["dead"]) == {"field/label_invalid": 2, "field/split_invalid": 3}
    assert (row["examples_dead"], row["captions_dead"]) == (0, 0)
    assert "lost: label_invalid, 1 of 2 labels: not a label: '7'" in call("inspect", run, "x/0")[0]
    assert damaged(run) == []
    said = call("run", tmp_path / "config.yaml", "--workers", 0, "--set", "max_dead_fraction=0.3", code=3)[1]
    assert "33.3% of an example's labels, on average, are dead letters" in said
    assert "2 are label_invalid, such as x/0: 1 of 2 labels: not a label: '7'" in said


def test_a_field_that_names_no_image_is_told_with_those_that_are_there(config):
    told = call("run", config(image=["picture"]), "--workers", 0, code=3)[1]
    assert "no image path in the field `picture`; saw `file_name`, `width`, `title`, `tags`" in told


def test_a_text_member_counts_only_where_it_is_named_or_nothing_is(tmp_path):
    contents = [("k.png", members("k", 1)["k.png"]), ("k.txt", b"a text"), ("k.json", b'{"caption": "json"}')]
    path = str(write_tar(tmp_path / "a.tar", contents))
    for names, captions in ((None, ["json", "a text"]), (["txt"], ["a text"]), (["caption"], ["json"])):
        source = {"name": "x", "format": "webdataset", "path": path, "captions": names}
        call("run", write_config(tmp_path, inputs=[source], **OFF), "--workers", 0)
        assert [row["captions"] for row in rows_of(tmp_path / "run", "ingest")] == [captions]
