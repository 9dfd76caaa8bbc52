"""What the driver records of a stage: enough to open no part, never replaced, and safe from old drivers."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runs import STAGES, current_folder, current_record, damaged, drive, plans, squares_config, state, tagmill
from sources import write_squares
from tagmill.pipeline import ledger, records
from tagmill.pipeline.current import current_records
from tagmill.pipeline.records import StageRecord, content_digest, root_digest
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.report import write_report
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import parquet, parts

PART_STAGES = [stage for stage in STAGES if stage not in ("cluster", "shards")]


def test_a_record_holds_what_the_parts_say_and_the_digest_of_all_their_bytes(made):
    run = made / "run"
    for stage in PART_STAGES:
        for name, record in current_record(run, stage).parts.items():
            path = current_folder(run, stage) / f"{name}.parquet"
            header = parts.read_part(str(path)).header
            assert (record.seal, record.size) == (parquet.seal(path.read_bytes()), path.stat().st_size)
            assert (record.digest, record.fingerprint) == (header.digest, header.fingerprint)
            assert (record.counts, record.notes, record.seconds) == (
                header.counts,
                header.notes,
                header.seconds,
            )
            assert (record.made_for, record.lost) == (header.rows, header.lost)
    embedded = current_record(run, "embed").parts
    assert {tag for part in embedded.values() for tag in part.tags} >= {"red", "blue"}


def test_planning_and_reporting_open_no_part_that_is_recorded(copy, monkeypatch):
    drive(copy)
    opened = []
    monkeypatch.setattr(parts, "read_footer", opened.append)
    assert all(plan.is_whole for plan in plans(copy).values())
    run = RunFolder(str(copy.parent / "run"))
    read = parts.read_part
    monkeypatch.setattr(
        parts, "read_part", lambda uri, columns=None: opened.append(uri) or read(uri, columns)
    )
    vocabulary = Vocabulary.load(str(copy.parent / "vocabulary.tsv"))
    write_report(run, vocabulary)
    assert opened == []
    (copy.parent / "run" / "report" / "tags.parquet").unlink()
    write_report(run, vocabulary)
    clean = str(current_folder(copy.parent / "run", "clean"))
    assert {str(Path(uri).parent) for uri in opened} == {clean}  # its decisions are counted


def test_notes_are_created_and_never_replaced(copy):
    run = copy.parent / "run"
    drive(copy)

    def notes() -> dict[str, tuple[int, int, str]]:
        return {n: s for n, s in state(run).items() if "_STAGE-" in n or "/rows-" in n}

    before = notes()
    drive(copy, "clean.policy.adaptive.weak_box=0.95")
    write_squares(copy.parent / "data" / "d.tar", 3, 40)
    drive(copy)
    assert before.items() <= notes().items()
    assert len(notes()) > len(before)


def test_equal_runs_say_the_same_and_others_do_not(tmp_path):
    said, roots = {}, {}
    for name, first in (("one", 0), ("two", 0), ("other", 1)):
        config = squares_config(tmp_path / name, {"b.tar": (6, first)})
        drive(config)
        found = list(current_records(RunFolder(str(tmp_path / name / "run"))))
        said[name], roots[name] = content_digest(found), root_digest(found)
    assert said["one"] == said["two"] != said["other"]
    assert len(set(roots.values())) == 3  # they hold times
    shown = tagmill("status", tmp_path / "one" / "run").stdout
    assert said["one"] in shown
    assert roots["one"] in shown
    drive(tmp_path / "one" / "config.yaml", "clean.policy.adaptive.weak_box=0.95")
    shown = tagmill("status", tmp_path / "one" / "run").stdout
    assert said["one"] not in shown
    assert roots["one"] not in shown


@pytest.mark.parametrize("store", ["local", "memory"])
def test_what_an_old_driver_still_writes_counts_for_nothing(tmp_path, store):
    root = str(tmp_path) if store == "local" else f"memory://records-{tmp_path.name}"
    old, new = RunFolder(root), RunFolder(root)
    old.token, new.token = ledger.claim_token(root), ledger.claim_token(root)
    assert old.token < new.token
    of_old = StageRecord("tag", "parts", 1, "aaaa", {"model": "old"}, {"score_floor": 0.5})
    of_new = StageRecord("tag", "parts", 1, "bbbb", {"model": "new"}, {"score_floor": 0.1})
    old.write_record(of_old)
    new.write_record(of_new)
    for _ in range(3):  # woken, it records and points and begins again
        for late in (
            lambda: old.write_record(of_old),
            lambda: old.begin("tag", "cccc"),
            lambda: old.switch_off("tag"),
        ):
            with pytest.raises(ConfigError, match="another driver has taken over the run"):
                late()
    assert new.current("tag") == "bbbb"
    assert new.needed("tag") == {"bbbb"}
    changed = StageRecord("tag", "parts", 1, "bbbb", {"model": "old"})
    for late in (lambda: old.write_record(changed), lambda: old.forget_all("tag", "bbbb")):
        with pytest.raises(ConfigError, match="another driver has taken over the run"):
            late()
    assert new.read_record("tag", "bbbb") == of_new


def test_a_driver_that_slept_cannot_bring_back_what_was_current_before_it_slept(tmp_path):
    root = str(tmp_path)

    def driver() -> RunFolder:
        folder = RunFolder(root)
        folder.token = ledger.claim_token(root)
        return folder

    def write(folder: RunFolder, generation: str) -> None:
        folder.write_record(StageRecord("tag", "parts", 1, generation, {}))

    for generation in ("aaaa", "bbbb", "aaaa"):
        ended = driver()
        write(ended, generation)
        ledger.give_back_token(root, ended.token)
    sleeping, awake = driver(), driver()
    write(awake, "aaaa")  # it stands so, but the sleeper could say otherwise
    with pytest.raises(ConfigError, match="another driver has taken over"):
        write(sleeping, "bbbb")
    assert awake.current("tag") == "aaaa"
    ledger.give_back_token(root, awake.token)
    shutil.rmtree(tmp_path / ledger.TOKENS)  # tokens start above those in the notes
    assert driver().token > awake.token


def test_of_many_who_claim_a_token_each_gets_one_of_its_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ledger.claim_token(str(tmp_path)), range(40)))
    assert sorted(found) == list(range(1, 41))
    assert ledger.claim_token(str(tmp_path)) == 41


def test_a_table_without_its_record_is_passed_over_and_garbage(copy):
    run = copy.parent / "run"
    drive(copy)
    folder = current_folder(run, "tag") / records.FOLDER
    known = current_record(run, "tag")
    note_id = (ledger.note_ids(str(run / "tag"))[-1][0] + 1, 1)
    left = folder / f"rows-{note_id[0]:08d}-{note_id[1]:06d}.parquet"
    files.create_bytes(str(left), parquet.table_bytes(parquet.read_table(known.rows).slice(1)))
    assert current_record(run, "tag") == known
    assert str(left) in list(records.superseded(str(folder.parent)))
    drive(copy, "tag.score_floor=0.9")
    shutil.rmtree(current_folder(run, "tag"))
    drive(copy)  # the token of this driver is that of the note, or a later one
    assert damaged(run) == []


def test_a_record_that_names_a_table_that_is_missing_is_said_in_one_line(copy):
    run = copy.parent / "run"
    drive(copy)
    Path(current_record(run, "tag").rows).unlink()
    done = tagmill("status", run)
    assert done.returncode == 5
    assert "is not the record of a stage" in done.stderr
    assert done.stderr.count("\n") == 1
