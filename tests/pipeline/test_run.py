import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from runs import (
    Quiet,
    current_folder,
    current_record,
    drive,
    parts_there,
    rows_of,
    samples,
    shard_bytes,
    squares_config,
    stage_files,
    state,
)
from sources import encode, members, square_image, write_config, write_squares, write_tar
from tagmill.pipeline.config import load_config
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.plan import StagePlan
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.verify import verify
from tagmill.runners.local import LocalEngine
from tagmill.tag_system.errors import ConfigError, DamageError, InputChangedError, TooManyDeadError
from tagmill.transforms import files
from tagmill.transforms.parts import read_header

STAGES = ["ingest", "duplicates", "tag", "localize", "embed", "cluster", "clean", "shards"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("made") / "it"
    assert drive(squares_config(folder)).stages == STAGES
    return folder


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the run, with its sources, and the config that belongs to it; times are kept."""
    shutil.copytree(made, tmp_path / "it")
    return squares_config(tmp_path / "it", tars={})


def plans(config: Path, *overrides: str) -> dict[str, StagePlan]:
    return {plan.stage.name: plan for plan in Driver(load_config(str(config), overrides)).plan()}


def damaged(run: Path) -> list[str]:
    return [problem for _, _, problems in verify(RunFolder(str(run))) for problem in problems]


def test_every_example_comes_out_with_its_true_tags(made):
    found = samples(made / "run")
    assert [sample["key"] for sample in found] == [f"squares/{i:06d}" for i in range(24)]
    for sample in found:
        kept = {tag["tag"] for tag in sample["tags"] if tag["verdict"] == "kept"}
        assert kept == set(sample["meta"]["truth"]) if "truth" in sample["meta"] else kept
        assert kept == {label["name"] for label in sample["labels"]}


def test_a_second_run_makes_and_touches_nothing(copy):
    drive(copy)  # settles what a copy of the sources changes
    before = stage_files(copy.parent / "run")
    assert drive(copy).jobs == []
    assert stage_files(copy.parent / "run") == before
    assert all(plan.is_whole for plan in plans(copy).values())


def test_another_threshold_makes_only_verdicts_and_shards(copy):
    run = copy.parent / "run"
    before = {stage: parts_there(run, stage) for stage in STAGES}
    old_shards = shard_bytes(run)
    new = "clean.policy.adaptive.margin=0.9"
    assert [name for name, plan in plans(copy, new).items() if not plan.is_whole] == ["clean", "shards"]
    assert drive(copy, new).stages == ["clean", "shards"]
    for stage in STAGES:
        there = parts_there(run, stage)
        assert before[stage].items() <= there.items()
        assert len(there) == len(before[stage]) * (2 if stage in ("clean", "shards") else 1)
    current = current_folder(run, "clean")
    assert drive(copy).jobs == []  # back to what was: the pointers alone
    assert current_folder(run, "clean") != current
    assert shard_bytes(run) == old_shards
    assert damaged(run) == []


def test_a_new_source_makes_only_its_own_parts_and_old_shards_keep_their_bytes(copy):
    run = copy.parent / "run"
    first = drive(copy)
    assert first.jobs == []
    write_squares(copy.parent / "data" / "a.tar", 7, 24)
    before = {stage: parts_there(run, stage) for stage in STAGES}
    shards = shard_bytes(run)
    keys = [sample["key"] for sample in samples(run)]
    made = drive(copy)
    new = set(made.tasks("tag"))
    assert len(new) == 2
    for stage in ("localize", "embed"):
        assert set(made.tasks(stage)) == new
    assert len(made.tasks("ingest")) == 1
    for stage in ("ingest", "duplicates", "tag", "localize", "embed"):
        there = parts_there(run, stage)
        assert before[stage].items() <= there.items()
        assert len(there) == len(before[stage]) + 2
    # New regions move the clusters, and with them the distances in the verdicts; the order stays.
    assert [sample["key"] for sample in samples(run)][: len(keys)] == keys
    assert set(shards) < set(shard_bytes(run))
    assert damaged(run) == []


def test_without_clusters_a_new_source_adds_shards_and_touches_none(tmp_path):
    config = squares_config(tmp_path, embed=None)
    run = tmp_path / "run"
    drive(config)
    shards = dict(parts_there(run, "shards").items())
    tars = state(current_folder(run, "shards"), "*.tar")
    write_squares(tmp_path / "data" / "a.tar", 7, 24)
    made = drive(config)
    assert len(made.tasks("clean")) == 2
    assert len(made.tasks("shards")) == 1
    assert shards.items() <= parts_there(run, "shards").items()
    assert tars.items() <= state(current_folder(run, "shards"), "*.tar").items()
    names = list(current_record(run, "ingest").parts)
    assert names[:6] == list(dict.fromkeys(names))[:6]
    assert [s["key"] for s in samples(run)] == [f"squares/{i:06d}" for i in range(31)]


def test_an_earlier_winner_stays_when_its_copy_arrives_under_an_earlier_name(tmp_path):
    config = squares_config(tmp_path, {"b.tar": (5, 0)}, embed=None, localize=None)
    drive(config)
    write_tar(tmp_path / "data" / "a.tar", [("copy.png", members("x", 0)["x.png"])])
    drive(config)
    (loser,) = rows_of(tmp_path / "run", "duplicates")
    assert (loser["key"], loser["reason"], loser["winner_row"]) == ("squares/copy", "same_image", 0)
    assert loser["winner_part"] == next(iter(current_record(tmp_path / "run", "ingest").parts))
    assert loser["part"] == list(current_record(tmp_path / "run", "ingest").parts)[-1]


def test_a_changed_source_is_refused_until_changes_are_accepted(copy):
    run = copy.parent / "run"
    drive(copy)
    contents = [item for i in range(12) for item in members(f"{i:06d}", i + (100 if i == 7 else 0)).items()]
    tar = write_tar(copy.parent / "data" / "b.tar", contents)
    os.utime(tar, (1_000_000, 1_000_000))
    before = stage_files(run)
    with pytest.raises(InputChangedError, match=r"b\.tar changed since it was ingested.*--accept-changes"):
        plans(copy)
    with pytest.raises(InputChangedError):
        drive(copy)
    assert stage_files(run) == before
    made = drive(copy, accept_changes=True)
    # The parts are read again, but one of three says something else.
    (changed,) = made.tasks("tag")
    assert changed.endswith("-00001")
    assert made.tasks("localize") == made.tasks("embed") == [changed]
    assert list(state(current_folder(run, "ingest") / "superseded"))
    assert list(state(current_folder(run, "tag") / "superseded")) == [f"000000-{changed}.parquet"]
    assert drive(copy).jobs == []
    assert damaged(run) == []


def test_a_source_that_shrank_loses_its_last_parts(copy):
    run = copy.parent / "run"
    write_squares(copy.parent / "data" / "b.tar", 4)
    drive(copy, accept_changes=True)
    assert len(current_record(run, "ingest").parts) == 4
    assert [s["key"] for s in samples(run)] == [f"squares/{i:06d}" for i in [*range(4), *range(12, 24)]]
    assert damaged(run) == []
    assert drive(copy).jobs == []


def test_a_source_that_grew_is_counted_anew_where_nothing_is_dropped(copy):
    write_squares(copy.parent / "data" / "b.tar", 14)  # two more in its last part
    drive(copy, accept_changes=True)
    found = {stage: current_record(copy.parent / "run", stage) for stage in ("ingest", "duplicates")}
    assert [record.count("example", "in") for record in found.values()] == [26, 26]


def test_a_touched_source_is_not_a_changed_one(copy):
    drive(copy)
    before = stage_files(copy.parent / "run")
    os.utime(copy.parent / "data" / "b.tar", (1_000_000, 1_000_000))
    assert drive(copy).jobs == []
    assert stage_files(copy.parent / "run") == before


@pytest.mark.parametrize("gone", ["b.tar", "c.tar"])
def test_the_examples_of_a_removed_source_leave_the_dataset_and_that_is_said(copy, gone, caplog):
    run = copy.parent / "run"
    os.unlink(copy.parent / "data" / gone)
    drive(copy)
    assert f"1 sources are gone; their examples leave the dataset: squares: {gone}" in caplog.text
    caplog.clear()
    left = range(12, 24) if gone == "b.tar" else range(12)
    assert [sample["key"] for sample in samples(run)] == [f"squares/{i:06d}" for i in left]
    assert damaged(run) == []
    assert drive(copy).jobs == []
    assert "are gone" not in caplog.text


def test_a_removed_source_that_filled_a_shard_alone_leaves_the_manifest(tmp_path):
    config = squares_config(tmp_path, {"a.tar": (10, 0), "b.tar": (10, 10)}, embed=None)
    drive(config)
    os.unlink(tmp_path / "data" / "b.tar")
    drive(config)
    folder = current_folder(tmp_path / "run", "shards")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [shard["name"] for shard in manifest["shards"]] == ["train-000000"]
    assert manifest["examples"] == {"train": 10}
    assert [path.name for path in folder.glob("*.tar")] == ["train-000000.tar"]
    assert damaged(tmp_path / "run") == []


def test_other_fields_of_an_input_make_its_sources_anew(copy):
    run = copy.parent / "run"
    config = json.loads(copy.read_text())
    config["inputs"][0]["labels"] = None
    copy.write_text(json.dumps(config))
    assert set(plans(copy)["ingest"].reasons) == {
        "b.tar: its input's config changed",
        "c.tar: its input's config changed",
    }
    made = drive(copy)
    assert len(made.tasks("ingest")) == 2
    assert {row["given"] for row in rows_of(run, "clean")} == {0}
    assert all("truth" in json.loads(row["meta"]) for row in rows_of(run, "ingest"))
    assert damaged(run) == []


def test_the_part_size_is_fixed_for_a_run(copy):
    with pytest.raises(ConfigError, match="was begun with part_size 5, which is fixed for a run"):
        plans(copy, "part_size=6")


def test_a_stage_that_is_switched_off_is_no_input_and_its_parts_stay(copy):
    run = copy.parent / "run"
    drive(copy)
    before = {stage: parts_there(run, stage) for stage in STAGES}
    off = ("embed=null", "localize=null")
    assert drive(copy, *off).stages == ["clean", "shards"]
    assert {row["rule"] for row in rows_of(run, "clean")} <= {"not_localized", "not_proposed"}
    reported = pq.read_table(run / "report" / "stages.parquet").column("stage").to_pylist()
    assert reported == ["ingest", "duplicates", "tag", "clean", "shards"]
    removed = [Path(path) for path, _ in garbage(RunFolder(str(run)))]
    assert {path.parent.name for path in removed} == {"clean", "shards"}
    for stage in ("localize", "embed", "cluster"):
        assert parts_there(run, stage) == before[stage]
    assert drive(copy).jobs == []


def test_what_an_interrupted_run_has_begun_is_no_garbage(copy):
    run = copy.parent / "run"
    drive(copy)
    with pytest.raises(KeyError, match="a bug in a plug-in"):
        drive(copy, "tag.model=troubled_models:FailingTagger")
    begun = RunFolder(str(run)).needed("tag") or set()
    assert len(begun) == 2
    killed = current_folder(run, "tag") / ".tmp-abc123"
    killed.write_bytes(b"half a part")
    assert dict(garbage(RunFolder(str(run)))) == {str(killed): 11}


def test_an_image_that_changed_beside_its_json_lines_comes_in_when_its_part_is_removed(tmp_path):
    photos, lines = tmp_path / "photos", tmp_path / "photos" / "a.jsonl"
    photos.mkdir()
    for place, name in enumerate(("red", "blue")):
        (photos / f"{name}.png").write_bytes(encode(square_image([name], place)))
    lines.write_text('{"image": "red.png"}\n{"image": "blue.png"}\n')
    inputs = [{"name": "a", "format": "jsonl", "path": str(lines)}]
    off = dict.fromkeys(("tag", "localize", "embed"))
    config = squares_config(tmp_path, {}, inputs=inputs, part_size=1, **off)
    drive(config)
    (photos / "red.png").write_bytes(encode(square_image(["green"])))
    with pytest.raises(InputChangedError, match=r"image of a/red changed .* remove its part"):
        drive(config, "clean.policy.rule=paper")
    for path in current_folder(tmp_path / "run", "ingest").glob("*-00000.parquet"):
        path.unlink()
    drive(config, "clean.policy.rule=paper")
    assert damaged(tmp_path / "run") == []
    assert [sample["key"] for sample in samples(tmp_path / "run")] == ["a/red", "a/blue"]


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
    made = {name for name in touched if not name.startswith(f"{record}/s") and "_STAGE" not in name}
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
    assert any("manifest.json cannot be read" in problem for problem in damaged(run))


def test_a_damaged_part_that_no_record_knows_is_named(copy):
    run = copy.parent / "run"
    drive(copy)
    folder = current_folder(run, "tag")
    (folder / "_STAGE.json").unlink()
    part = sorted(folder.glob("*.parquet"))[0]
    part.write_bytes(b"")
    with pytest.raises(DamageError, match=f"{part.name} cannot be read .*remove it and run again"):
        plans(copy)


def test_leftovers_of_a_killed_writer_are_passed_over(copy):
    run = copy.parent / "run"
    drive(copy)
    for stage in ("tag", "clean", "shards"):
        (current_folder(run, stage) / ".tmp-abc123").write_bytes(b"half a part")
        (current_folder(run, stage) / ".tmp-abc124.parquet").write_bytes(b"half a part")
    assert drive(copy).jobs == []
    assert damaged(run) == []
    os.unlink(sorted(current_folder(run, "tag").glob("[!.]*.parquet"))[0])
    assert drive(copy).stages == ["tag"]


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
        assert size == sum(p.stat().st_size for p in Path(path).rglob("*") if p.is_file())
        files.remove(path)
    assert not list(garbage(RunFolder(str(run))))
    assert len(list((run / "tag").iterdir())) == 2  # the current generation and the pointer
    assert damaged(run) == []
    assert shard_bytes(run) == shards
    assert drive(copy).jobs == []


def test_too_many_dead_letters_stop_the_run_at_their_stage(tmp_path):
    contents = [item for i in range(4) for item in members(f"{i:06d}", i).items()]
    contents += [("broken.png", b"no image"), ("broken.txt", b"a red square")]
    write_tar(tmp_path / "data" / "a.tar", contents)
    config = squares_config(tmp_path, {}, max_dead_fraction=0.1)
    with pytest.raises(TooManyDeadError, match="ingest: 1 of all 5 examples are dead letters"):
        drive(config)
    assert not (tmp_path / "run" / "tag").exists()
    (letter,) = dead_letters(tmp_path / "run", "ingest")
    assert (letter["key"], letter["reason"], letter["unit"]) == (
        "squares/broken",
        "image_unreadable",
        "example",
    )
    drive(config, "max_dead_fraction=0.2")
    assert len(samples(tmp_path / "run")) == 4


def dead_letters(run: Path, stage: str) -> list[dict]:
    found = sorted((run / stage).glob("*/dead/*.parquet"))
    return [row for path in found for row in pq.read_table(path).to_pylist()]


def test_a_bad_caption_drops_itself_alone(finished):
    (letter,) = [d for d in dead_letters(finished / "run", "ingest") if d["unit"] == "caption"]
    assert (letter["key"], letter["caption_index"]) == ("squares/empty-caption", 1)
    assert letter["reason"] == "caption_empty"
    (sample,) = [s for s in samples(finished / "run") if s["key"] == "squares/empty-caption"]
    assert [caption["text"] for caption in sample["captions"] if caption["source"] == "given"] == [
        "a red square"
    ]


def test_an_example_without_captions_goes_on(finished):
    (sample,) = [s for s in samples(finished / "run") if s["key"] == "squares/no-caption"]
    assert {tag["tag"] for tag in sample["tags"] if tag["verdict"] == "kept"} == set(sample["meta"]["truth"])


def test_the_first_parts_of_a_model_stage_are_tried_alone(tmp_path):
    """A model that fails on every image shows before it has seen all of them."""
    write_squares(tmp_path / "data" / "a.tar", 21)
    config = squares_config(
        tmp_path,
        {},
        part_size=1,
        tag={"model": "troubled_models:FailingTagger"},
        localize=None,
        embed=None,
        duplicates=None,
    )
    with pytest.raises(TooManyDeadError, match="tag: 2 of the first parts 2 examples are dead letters"):
        drive(config)
    assert len(list((tmp_path / "run" / "tag").glob("*/*.parquet"))) == 2
    assert {letter["reason"] for letter in dead_letters(tmp_path / "run", "tag")} == {"model_failed"}


def test_a_model_that_cannot_be_had_stops_the_run_before_its_first_stage(tmp_path):
    config = squares_config(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot import nothere"):
        drive(config, "embed.model=nothere:Model")
    assert not (tmp_path / "run").exists()


def test_progress_is_told_of_every_stage_in_its_own_units(copy):
    drive(copy)
    write_squares(copy.parent / "data" / "d.tar", 3, 40)
    driver, progress = Driver(load_config(str(copy))), Quiet()
    driver.run(LocalEngine(1, _no_flags()), progress)
    assert progress.started[0] == ("ingest", 2, 3)
    assert ("tag", 6, 7) in progress.started
    assert progress.finished[0] == ("ingest", 27, 0)
    assert [name for name, _, _ in progress.finished] == STAGES


def _no_flags():
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions([])


def test_parts_of_an_interrupted_ingest_are_kept(tmp_path):
    config = squares_config(tmp_path, {"a.tar": (12, 0)}, embed=None, localize=None)
    drive(config)
    run = tmp_path / "run"
    shards = shard_bytes(run)
    folder = current_folder(run, "ingest")
    kept = sorted(folder.glob("*.parquet"))[:2]
    before = [path.stat().st_ino for path in kept]
    shutil.rmtree(folder / "sources")
    (folder / "_STAGE.json").unlink()
    sorted(folder.glob("*.parquet"))[2].unlink()
    for stage in ("duplicates", "tag", "clean", "shards"):
        shutil.rmtree(run / stage)
    drive(config)
    assert [path.stat().st_ino for path in kept] == before
    assert shard_bytes(run) == shards


def test_two_inputs_keep_their_keys_apart(tmp_path):
    for name in ("one", "two"):
        write_squares(tmp_path / name / "a.tar", 3)
    inputs = [
        {"name": name, "format": "webdataset", "path": f"{tmp_path}/{name}/*.tar"} for name in ("one", "two")
    ]
    config = write_config(tmp_path, inputs=inputs, parse=None, localize=None, embed=None)
    drive(config)
    assert [s["key"] for s in samples(tmp_path / "run")] == [
        f"{name}/{i:06d}" for name in ("one", "two") for i in range(3)
    ]
    assert rows_of(tmp_path / "run", "duplicates") == []


def test_splits_follow_the_source_or_the_hash_of_the_image(tmp_path):
    image = encode(square_image(["red"]))
    contents = [("a.png", image), ("a.json", b'{"split": "val2017"}')]
    contents += [("b.png", encode(square_image(["blue"]))), ("b.json", b'{"split": "restval"}')]
    contents += [("c.png", encode(square_image(["green"]))), ("c.json", b'{"split": "test"}')]
    write_tar(tmp_path / "data" / "a.tar", contents)
    config = squares_config(tmp_path, {}, localize=None, embed=None)
    drive(config)
    assert {s["key"]: s["split"] for s in samples(tmp_path / "run")} == {
        "squares/a": "val",
        "squares/b": "train",
        "squares/c": "test",
    }
    assert {path.name for path in current_folder(tmp_path / "run", "shards").glob("*.tar")} == {
        "train-000000.tar",
        "val-000000.tar",
        "test-000000.tar",
    }
    manifest = current_folder(tmp_path / "run", "shards") / "manifest.json"
    assert json.loads(manifest.read_text())["examples"] == {"train": 1, "val": 1, "test": 1}
