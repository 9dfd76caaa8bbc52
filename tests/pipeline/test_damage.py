"""Runs whose own files are lost or damaged: what `verify` says, and what is made again."""

import os
import shutil

import pyarrow.parquet as pq
import pytest

from runs import (
    current_folder,
    damaged,
    drive,
    latest_note,
    plans,
    shard_bytes,
    squares_config,
    stage_files,
)
from sources import members, write_tar
from tagmill.pipeline.lease import read_lease
from tagmill.tag_system.core.errors import DamageError
from tagmill.transforms.parts import read_header


@pytest.mark.parametrize("stage", ["ingest", "duplicates", "tag", "localize", "embed", "clean"])
def test_a_removed_part_is_made_again_as_it_was(copy, stage):
    run = copy.parent / "run"
    drive(copy)
    victim = sorted(current_folder(run, stage).glob("*.parquet"))[1]
    digest, shards, others = read_header(str(victim)).digest, shard_bytes(run), stage_files(run)
    victim.unlink()
    assert not all(plan.is_whole for plan in plans(copy).values())
    made = drive(copy)
    assert made.stages == [stage]
    assert read_header(str(victim)).digest == digest
    assert shard_bytes(run) == shards
    touched = {name for name, value in stage_files(run).items() if others.get(name) != value}
    record = str(current_folder(run, "ingest").relative_to(run))
    notes = ("_STAGE", "/records/")
    made = {n for n in touched if not n.startswith(f"{record}/s") and not any(note in n for note in notes)}
    assert made == {str(victim.relative_to(run))}
    assert damaged(run) == []


def test_a_removed_cluster_table_is_made_again(copy):
    run = copy.parent / "run"
    drive(copy)
    os.unlink(current_folder(run, "cluster") / "clusters.parquet")
    assert damaged(run) == [f"{current_folder(run, 'cluster')}/clusters.parquet is missing"]
    assert drive(copy).stages == ["cluster"]
    assert damaged(run) == []


@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.index.parquet"])
def test_a_removed_shard_is_written_again_as_it_was(copy, name):
    run = copy.parent / "run"
    drive(copy)
    shards = shard_bytes(run)
    os.unlink(current_folder(run, "shards") / name)
    (problem,) = damaged(run)
    assert f"{name} is missing" in problem
    assert drive(copy).jobs == [("shards", ["train-000001"])]
    assert shard_bytes(run) == shards
    assert damaged(run) == []


@pytest.mark.parametrize("name", ["manifest.json", "vocabulary.tsv", "README.md"])
def test_what_is_missing_around_the_shards_is_written_again(copy, name):
    """As after an interruption between the last shard and the manifest."""
    run = copy.parent / "run"
    drive(copy)
    path = current_folder(run, "shards") / name
    content = path.read_bytes()
    path.unlink()
    assert not plans(copy)["shards"].is_whole
    assert drive(copy).jobs == []
    assert path.read_bytes() == content


def test_verify_finds_every_kind_of_damage(copy):
    run = copy.parent / "run"
    drive(copy)
    part = sorted(current_folder(run, "tag").glob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-20])
    other, third = sorted(current_folder(run, "embed").glob("*.parquet"))[:2]
    shutil.copy(third, other)
    tar = current_folder(run, "shards") / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-512] + b"x" * 512)
    index = current_folder(run, "shards") / "train-000002.index.parquet"
    index.write_bytes(b"PAR1")
    found = damaged(run)
    assert [any(path.name in problem for problem in found) for path in (part, other, tar, index)] == [
        True
    ] * 4
    assert len(found) == 4
    for path in (part, other, tar, index):
        path.unlink()
    drive(copy)
    assert damaged(run) == []


def test_verify_misses_no_dead_letter_and_no_member_of_an_index(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    letters = sorted(current_folder(run, "ingest").glob("dead/*.parquet"))[0]
    letters.unlink()
    folder = current_folder(run, "shards")
    index = sorted(folder.glob("*.index.parquet"))[0]
    pq.write_table(pq.read_table(index).slice(1), index)  # its header stays
    found = damaged(run)
    assert any(str(letters) in problem for problem in found)
    assert any(str(index) in problem for problem in found)
    (folder / "manifest.json").write_text("{}")
    assert any("manifest.json does not match" in problem for problem in damaged(run))


def test_dead_letters_that_are_missing_are_written_again_with_their_part(tmp_path):
    contents = [item for i in range(4) for item in members(f"{i:06d}", i).items()]
    contents += [("broken.png", b"not an image"), ("broken.txt", b"a red square")]
    write_tar(tmp_path / "data" / "a.tar", contents)
    config = squares_config(tmp_path, {}, max_dead_fraction=0.5)
    drive(config)
    run = tmp_path / "run"
    shards = shard_bytes(run)
    (letters,) = (current_folder(run, "ingest") / "dead").glob("*.parquet")
    before = pq.read_table(letters)
    letters.unlink()
    assert damaged(run) == [f"{letters} is missing"]
    assert drive(config).stages == ["ingest"]
    assert pq.read_table(letters).equals(before)
    assert damaged(run) == []
    assert shard_bytes(run) == shards
    assert drive(config).jobs == []


def test_a_damaged_part_that_no_record_knows_is_named(copy):
    run = copy.parent / "run"
    drive(copy)
    folder = current_folder(run, "tag")
    shutil.rmtree(folder / "records")
    part = sorted(folder.glob("*.parquet"))[0]
    part.write_bytes(b"")
    with pytest.raises(DamageError, match=f"{part.name} cannot be read .*remove it and run again"):
        plans(copy)


@pytest.mark.parametrize(
    ("find", "said"),
    [
        (lambda run: latest_note(run / "clean"), "is missing"),
        (lambda run: latest_note(run / "ingest"), "is missing"),
        (lambda run: latest_note(current_folder(run, "tag") / "records"), "is missing"),
        (lambda run: next((current_folder(run, "ingest") / "sources").iterdir()), "is missing"),
        (lambda run: current_folder(run, "shards") / "cut.json", "is missing"),
        (lambda run: current_folder(run, "shards") / "vocabulary.tsv", "is missing"),
    ],
    ids=["clean", "ingest", "generation", "source", "cut", "vocabulary"],
)
def test_a_note_that_is_missing_is_found(copy, find, said):
    drive(copy)
    path = find(copy.parent / "run")
    path.unlink()
    problem, *others = damaged(copy.parent / "run")
    assert said in problem
    assert path.name in problem or "note" in problem or "record" in problem
    assert all("which is not current" in other for other in others)


@pytest.mark.parametrize(
    "find",
    [
        lambda run: latest_note(run / "clean"),
        lambda run: latest_note(current_folder(run, "tag") / "records"),
        lambda run: next((current_folder(run, "ingest") / "sources").iterdir()),
        lambda run: run / "run.yaml",
    ],
    ids=["pointer", "generation", "source", "config"],
)
@pytest.mark.parametrize("data", [b"{garbage", b"\xff\xfe: ["], ids=["text", "bytes"])
def test_a_note_that_is_none_is_said_in_one_line(copy, find, data):
    drive(copy)
    path = find(copy.parent / "run")
    path.write_bytes(data)
    with pytest.raises(DamageError, match=path.name) as raised:
        drive(copy)
    assert "\n" not in str(raised.value)


def test_a_lease_that_is_none_is_said_in_one_line(tmp_path):
    (tmp_path / "lease.json").write_text("{garbage")
    with pytest.raises(DamageError, match=r"lease\.json is damaged .*remove it"):
        read_lease(str(tmp_path / "lease.json"))
