from pathlib import Path

from commands import call
from runs import squares_config
from tagmill.runners.left_job import NAME, JobNote

FEW = {"duplicates": None, "localize": None, "embed": None}

LEFT = JobNote("dataflow", "proj-ect1", "us-central1", "tagmill-tag-1", "tag")


def note(tmp_path: Path) -> Path:
    """Have a driver leave a job, and give its note."""
    uri = tmp_path / "run" / NAME
    LEFT.write(str(uri))
    return uri


def test_a_note_says_what_was_written(tmp_path):
    assert JobNote.read(str(note(tmp_path))) == LEFT
    assert JobNote.read(str(tmp_path / "none.json")) is None


def test_a_runner_that_cannot_wait_for_the_job_warns_and_goes_on(tmp_path, caplog):
    uri = note(tmp_path)
    config = squares_config(tmp_path, {"b.tar": (2, 0)}, **FEW)
    call("run", config, "--until", "ingest", "--workers", 0)
    (said,) = caplog.messages
    assert said.startswith("tag: an earlier driver left the job tagmill-tag-1 on Dataflow (project proj-ect1")
    assert said.endswith(f"remove {uri}")
    assert (tmp_path / "run" / "ingest").is_dir()
    assert uri.exists()


def test_a_note_that_was_damaged_is_one_line(tmp_path):
    uri = note(tmp_path)
    uri.write_text("{}")
    _, err = call("run", squares_config(tmp_path, {"b.tar": (2, 0)}, **FEW), "--workers", 0, code=5)
    assert err.startswith(f"tagmill: {uri} is damaged")
