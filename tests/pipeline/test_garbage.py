from pathlib import Path

import pytest

from runs import current_folder, damaged, drive, shard_bytes
from sources import write_squares
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.run_folder import RunFolder
from tagmill.tag_system.core import files


def test_what_an_interrupted_run_has_begun_is_no_garbage(copy):
    run = copy.parent / "run"
    drive(copy)
    with pytest.raises(KeyError, match="a bug in a plug-in"):
        drive(copy, "tag.model=troubled_models:FailingTagger")
    begun = RunFolder(str(run)).needed("tag") or set()
    assert len(begun) == 2
    killed = current_folder(run, "tag") / ".tmp-abc123"
    killed.write_bytes(b"half a part")
    found = dict(garbage(RunFolder(str(run))))
    assert found.pop(str(killed)) == 11
    # Besides, notes that newer ones have taken the place of, and what the worker said when it failed.
    history = ("_STAGE-", "/rows-", "/tokens/", "/failures")
    assert all(any(part in path for part in history) for path in found)


def test_garbage_is_what_no_current_stage_needs(copy):
    run = copy.parent / "run"
    drive(copy, "tag.score_floor=0.1")
    drive(copy)
    write_squares(copy.parent / "data" / "b.tar", 11, 50)
    drive(copy, accept_changes=True)
    shards = shard_bytes(run)
    found = dict(garbage(RunFolder(str(run))))
    names = {str(Path(path).relative_to(run)).split("/")[0] for path in found}
    assert names >= {"ingest", "tag", "localize", "embed", "cluster", "clean", "shards"}
    for path, size in found.items():
        held = [Path(path), *Path(path).rglob("*")]
        assert size == sum(p.stat().st_size for p in held if p.is_file())
        files.remove(path)
    assert not list(garbage(RunFolder(str(run))))
    assert len(list((run / "tag").iterdir())) == 2  # the current generation and the note that says so
    assert damaged(run) == []
    assert shard_bytes(run) == shards
    assert drive(copy).jobs == []
