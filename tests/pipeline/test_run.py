import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from commands import call
from counted_models import calls, counted
from runs import (
    STAGES,
    CountingEngine,
    Quiet,
    current_folder,
    damaged,
    drive,
    parts_there,
    plans,
    rows_of,
    samples,
    shard_bytes,
    squares_config,
    stage_files,
    tagmill,
)
from sources import encode, members, square_image, write_config, write_squares, write_tar
from tagmill.pipeline.config import load_config
from tagmill.pipeline.garbage import garbage
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.runners.local import LocalEngine
from tagmill.tag_system.core.errors import ConfigError, TooManyDeadError
from troubled_models import digests_of


def kept_tags(sample):
    return {tag["tag"] for tag in sample["tags"] if tag["verdict"] == "kept"}


def test_every_example_comes_out_with_its_true_tags(made):
    found = samples(made / "run")
    assert [sample["key"] for sample in found] == [f"squares/{i:06d}" for i in range(24)]
    for sample in found:
        kept, meta = kept_tags(sample), json.loads(sample["meta"])
        assert kept == set(meta["truth"]) if "truth" in meta else kept
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
    new = "clean.policy.adaptive.weak_box=0.95"
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


def test_the_part_size_is_fixed_for_a_run(copy):
    with pytest.raises(ConfigError, match="was begun with part_size 5, which is fixed for a run"):
        plans(copy, "part_size=6")


def test_a_stage_that_is_switched_off_is_no_input_and_its_parts_stay(copy):
    run = copy.parent / "run"
    drive(copy)
    before = {stage: parts_there(run, stage) for stage in STAGES}
    off = ("embed=null", "localize=null")
    assert drive(copy, *off).stages == ["candidates", "clean", "shards"]
    assert {row["rule"] for row in rows_of(run, "clean")} <= {"not_localized", "not_proposed"}
    reported = pq.read_table(run / "report" / "stages.parquet").column("stage").to_pylist()
    assert reported == ["ingest", "duplicates", "tag", "candidates", "clean", "shards"]
    removed = [Path(path) for path, _ in garbage(RunFolder(str(run)))]
    assert {p.parent.name for p in removed if p.is_dir()} == {"candidates", "clean", "shards"}
    for stage in ("localize", "embed", "cluster"):
        assert parts_there(run, stage) == before[stage]
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
    status = tagmill("status", tmp_path / "run").stdout
    assert "dead examples of ingest: 1 are image_unreadable, such as squares/broken: " in status
    assert "image_unreadable" in tagmill("inspect", tmp_path / "run", "squares/broken").stdout
    drive(config, "max_dead_fraction=0.2")
    assert len(samples(tmp_path / "run")) == 4


def test_a_run_up_to_a_stage_needs_no_later_model_and_is_gone_on_with(tmp_path):
    run = tmp_path / "run"
    config = squares_config(tmp_path, {"a.tar": (6, 0)}, parse={"mode": "fast"})
    later = "tag.model=no_such_package:Tagger"
    result = tagmill("run", config, "--until", "parse", "--set", later, "--workers", 0)
    assert (result.returncode, result.stderr) == (0, "")
    whole = json.loads(tagmill("status", run, "--json").stdout)
    assert [stage["stage"] for stage in whole["stages"]] == ["ingest", "duplicates", "parse"]
    assert damaged(run) == []
    assert drive(config).stages[0] == "tag"
    # What comes later stays as it is, and is not taken for damage.
    driver = Driver(load_config(str(config), ["parse.mode=default"]), until="parse")
    driver.run(CountingEngine(), Quiet())
    assert damaged(run) == []
    assert len(samples(run)) == 6
    for stage in ("parsing", "caption"):
        result = tagmill("run", config, "--until", stage)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"--until {stage}" in result.stderr


def test_a_log_collector_gets_json_alone(tmp_path):
    (tmp_path / "data").mkdir()
    config = squares_config(tmp_path, {"a.tar": (3, 0)}, max_dead_fraction=0.1)
    write_tar(tmp_path / "data" / "b.tar", [("broken.png", b"no image"), ("other.png", b"")])
    result = tagmill(
        "run", config, "--workers", 0, "--log-format", "json", "--set", "clean.policy.tagger_threshold=0.1"
    )
    assert result.returncode == 3
    said = [json.loads(line) for line in (result.stdout + result.stderr).splitlines()]
    assert [one["event"] for one in said][-2:] == ["warning", "error"]
    assert "max_dead_fraction" in said[-1]["message"]


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
    assert kept_tags(sample) == set(json.loads(sample["meta"])["truth"])


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


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_model_that_prepares_no_images_is_refused_in_a_line_that_says_what_to_write(tmp_path, command):
    config = squares_config(tmp_path)
    changes = ["--set", "tag.model=odd_models:OldTagger"]
    _, err = call(command, config, *changes, code=2)
    assert err.splitlines()[-1] == (
        "tagmill: model 'odd_models:OldTagger' lacks the methods prepare, size_of: "
        "a model prepares each image in the decode threads and predict takes what it gave; "
        'add "def prepare(self, image): return image" and '
        '"def size_of(self, width, height): return width, height" to keep predict as it is'
    )
    assert not (tmp_path / "run").exists()


def test_progress_is_told_of_every_stage_in_its_own_units(copy):
    drive(copy)
    write_squares(copy.parent / "data" / "d.tar", 3, 40)
    driver, progress = Driver(load_config(str(copy))), Quiet()
    driver.run(LocalEngine(0, _no_flags()), progress)
    assert progress.started[0] == ("ingest", 2, 3)
    assert ("tag", 6, 7) in progress.started
    assert progress.finished[0] == ("ingest", 27, 0)
    assert [name for name, _, _ in progress.finished] == STAGES


def _no_flags():
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions([])


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
    contents = [("a.png", image), ("a.json", b'{"split": "val2017", "truth": []}')]
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


def test_a_trial_of_the_first_examples_is_taken_over_where_its_parts_are_whole(tmp_path):
    """Ten of a source that has 22, and all of one that has 7; a part has 4."""
    log = tmp_path / "calls"
    tars = {"a.tar": (22, 0), "b.tar": (7, 22)}
    alone = squares_config(tmp_path / "alone", tars, part_size=4, shards={"size": 8})
    drive(alone)
    config = squares_config(
        tmp_path, tars, part_size=4, shards={"size": 8}, **counted(log) | {"caption": None}
    )
    result = tagmill("run", config, "--limit", 10, "--workers", 0)
    assert (result.returncode, result.stderr) == (0, "")
    trial = tmp_path / "run-limit-10"
    assert [s["key"] for s in samples(trial)] == [f"squares/{n:06d}" for n in (*range(10), *range(22, 29))]
    assert "nothing to do" in tagmill("plan", config, "--limit", 10, "--check-sources").stdout
    assert calls(log)["Tagger"] == 17
    assert damaged(trial) == []
    drive(config)
    assert calls(log)["Tagger"] == 29 - 8 - 7
    assert shard_bytes(tmp_path / "run").keys() == shard_bytes(tmp_path / "alone" / "run").keys()
    assert damaged(tmp_path / "run") == []


def test_dead_letters_are_tried_again_on_demand(tmp_path):
    """Of a stage with a model, and of ingest once its image is back."""
    contents = [item for i in range(6) for item in members(f"{i:06d}", i).items()]
    write_tar(tmp_path / "data" / "a.tar", contents)
    lines = [json.dumps({"image": f"{n}.png", "captions": ["a red square"]}) for n in ("here", "missing")]
    (tmp_path / "data" / "lines.jsonl").write_text("\n".join(lines))
    (tmp_path / "data" / "here.png").write_bytes(encode(square_image(["red"], seed=50)))
    inputs = [
        {"name": "squares", "format": "webdataset", "path": str(tmp_path / "data" / "*.tar")},
        {"name": "lines", "format": "jsonl", "path": str(tmp_path / "data" / "lines.jsonl")},
    ]
    (tmp_path / "broken").write_text(digests_of(tmp_path / "data" / "a.tar")[3])
    tagger = {"model": "troubled_models:MendedTagger", "options": {"broken": str(tmp_path / "broken")}}
    config = squares_config(tmp_path, {}, inputs=inputs, part_size=2, tag=tagger, max_dead_fraction=0.5)
    run = tmp_path / "run"
    drive(config)
    assert len(samples(run)) == 6
    result = tagmill("run", config, "--retry-dead", "tag:image_missing")
    assert result.returncode == 2
    assert "has no such dead letters; it has ingest:image_missing, tag:model_failed" in result.stderr
    (tmp_path / "broken").unlink()
    (tmp_path / "data" / "missing.png").write_bytes(encode(square_image(["blue"], seed=51)))
    before = parts_there(run, "tag")
    assert tagmill("run", config, "--retry-dead", "tag", "--workers", 0).returncode == 0
    assert len(parts_there(run, "tag").keys() & before.keys()) == len(before)
    assert len(samples(run)) == 7
    assert tagmill("run", config, "--retry-dead", "ingest:image_missing", "--workers", 0).returncode == 0
    assert len(samples(run)) == 8
    assert damaged(run) == []


def test_jobs_that_number_their_examples_alike_are_doubted(tmp_path, caplog):
    for job in range(3):
        contents = [(f"{n}.png", encode(square_image(["red"], seed=10 * job + n))) for n in range(2)]
        write_tar(tmp_path / "data" / f"{job}.tar", contents)
    off = dict.fromkeys(("tag", "localize", "embed", "cluster"))
    source = {
        "name": "jobs",
        "format": "webdataset",
        "path": str(tmp_path / "data" / "*.tar"),
        "captions": [],
    }
    config = squares_config(tmp_path, {}, inputs=[source], **off)
    drive(config)
    (line,) = [record.getMessage() for record in caplog.records if "duplicates" in record.getMessage()]
    assert "4 of 6 examples were dropped" in line
    assert line.endswith("make every job an input")
    caplog.clear()
    drive(config)
    assert not caplog.records


def test_a_plan_shows_examples_as_they_would_be_read(tmp_path):
    """What is bad in them as well; nothing is written."""
    fields = {"caption": ["a red square", ""], "labels": ["red", "diningtable", 5], "page": 3}
    good = [("0.png", encode(square_image(["red"]))), ("0.json", json.dumps(fields).encode())]
    write_tar(tmp_path / "data" / "a.tar", [*good, ("1.png", b"no image"), ("2.png", good[0][1])])
    source = {"name": "it", "format": "webdataset", "path": str(tmp_path / "data" / "*.tar")}
    config = squares_config(tmp_path, {}, inputs=[source], vocabulary=None)
    result = tagmill("plan", config, "--examples", 2)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "input it: webdataset, 1 sources, the first 2 examples"
    assert "captions from: caption 1" in lines[1]
    assert [line.strip() for line in lines[2:6]] == [
        "it/0: PNG 96 x 80, train",
        "caption: a red square",
        "labels: red, diningtable (dining table)",
        'meta: {"page": 3}',
    ]
    assert {line.split(":")[1].split(",")[1].strip() for line in lines[6:]} == {
        "caption_empty",
        "image_unreadable",
        "label_invalid",
    }
    (tmp_path / "excluded.txt").write_text("it/0\n")  # and 2, which has its image
    source["exclude"] = str(tmp_path / "excluded.txt")
    config = squares_config(tmp_path, {}, inputs=[source], vocabulary=None)
    lines = tagmill("plan", config, "--examples", 3).stdout.splitlines()
    assert lines[0].endswith("the first 3 examples, 2 of them excluded")
    assert [line.partition(":")[0].strip() for line in lines[2:]] == ["it/1"]
    assert not (tmp_path / "run").exists()
