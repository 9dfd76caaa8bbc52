"""What `verify` finds: any changed bit, any missing file, any that does not belong, edits made by hand."""

import random
import shutil
from pathlib import Path

import pytest

import corruptions
import trust
from runs import current_folder, current_record, damaged, latest_note
from tagmill.pipeline.current import current_records
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.records import root_digest
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.verify import check_root
from tagmill.tag_system.core import notes

FLIPS = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two runs with all kinds of files, see `corruptions.make_runs`."""
    folder = tmp_path_factory.mktemp("made")
    corruptions.make_runs(folder)
    return folder


@pytest.fixture(scope="module")
def whole(made: Path) -> Path:
    """The first of them."""
    return made / "runs" / "run"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy, which a test may damage; records name their tables by the folder that they lie in."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def covered(run: Path) -> list[Path]:
    return [path for path in sorted(run.rglob("*")) if path.is_file() and path.parent.name != "tokens"]


def test_a_run_is_sound_wherever_it_lies(run):
    assert damaged(run) == []


def test_any_flipped_bit_is_found_and_its_file_named(run):
    dice = random.Random(7)
    paths = covered(run)
    assert {path.suffix for path in paths} == {".parquet", ".json", ".yaml", ".tar", ".tsv", ".md", ".npy"}
    for _ in range(FLIPS):
        path = dice.choice(paths)
        before = path.read_bytes()
        place = dice.randrange(len(before))
        path.write_bytes(
            before[:place] + bytes([before[place] ^ 1 << dice.randrange(8)]) + before[place + 1 :]
        )
        found = damaged(run)
        assert any(path.name in problem or path.parent.name in problem for problem in found), (path, place)
        path.write_bytes(before)
    assert damaged(run) == []


def test_any_missing_file_is_named(run):
    history = {uri for uri, _ in garbage(RunFolder(str(run)))}  # which nobody misses
    for path in covered(run)[::3]:
        if path.name == "run.yaml" or any(str(path).startswith(uri) for uri in history):
            continue
        path.rename(run.parent / "aside")
        found = damaged(run)
        assert any(path.name in problem or path.parent.parent.name in problem for problem in found), path
        (run.parent / "aside").rename(path)


def test_corruptions_of_all_kinds_are_named_and_then_repaired_or_refused(made):
    line = trust.corrupted(made, every=5, then_every=5)
    assert (line.tried, line.wrong) == (25, [])


def test_records_and_files_that_were_changed_together_are_told_by_a_digest_that_was_kept(run):
    folder = RunFolder(str(run))
    root = root_digest(current_records(folder))
    assert [problems for *_, problems in check_root(folder, root)] == [[]]
    path = latest_note(current_folder(run, "ingest") / "records")
    record = notes.read(str(path))
    record["more"]["sources"] = [*record["more"]["sources"]]
    for part in record["parts"]:
        part["counts"]["dead"] = {}
    path.write_bytes(notes.dump(record))
    assert damaged(run) == []
    ((_, _, (problem,)),) = check_root(folder, root)
    assert "records and files were changed together" in problem
    assert current_record(run, "ingest").count("example", "dead") == 0
