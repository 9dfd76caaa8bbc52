import json
import signal
import time
import zlib
from pathlib import Path

import pytest
import yaml

from commands import call, parts_of, start, tagmill
from runs import drive, shard_bytes, squares_config
from sources import members, write_config, write_squares, write_tar
from tagmill.pipeline.config import load_config
from tagmill.pipeline.run import Driver
from tagmill.runners.commands.demo import embedded
from tagmill.runners.remote import what_is_missing
from tagmill.tag_system.core.errors import ConfigError


def config_over(folder: Path, count: int = 8, **changes: object) -> Path:
    """A run that parses no captions: that takes a model of its own to load."""
    return squares_config(folder, {"a.tar": (count, 0)}, **changes)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a finished run; whoever changes it makes it whole again."""
    config = config_over(tmp_path_factory.mktemp("made"))
    call("run", config, "--workers", 0)
    return config


def one_line(err: str) -> str:
    (line,) = err.strip().splitlines()
    assert line.startswith("tagmill: ")
    return line


NOWHERE = [{"name": "a", "format": "webdataset", "path": "nowhere/*.tar"}]
NO_MODEL = {"model": "grounding-dino", "options": {"path": "/no/such/folder"}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"part_sise": 5}, "did you mean part_size"),
        ({"inputs": NOWHERE}, "nowhere/*.tar"),
        ({"localize": NO_MODEL}, "/no/such/folder"),
    ],
    ids=["unknown key", "wrong path", "missing model"],
)
def test_bad_usage_is_one_line_that_says_what_to_do(tmp_path: Path, changes: dict[str, object], said: str):
    _, err = tagmill("run", config_over(tmp_path, **changes), code=2)
    assert said in one_line(err)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clean": {"policy": {"rull": "paper"}}}, "clean.policy.rull; did you mean rule"),
        ({"tag": {"model": "no_such_module:Tagger"}}, "no_such_module"),
        ({"vocabulary": "no_such_list.txt"}, "no_such_list.txt"),
        ({"shards": {"size": 2}}, "shards.size"),
    ],
    ids=["nested key", "missing module", "vocabulary", "shard size"],
)
def test_a_bad_config_is_found_before_anything_starts(tmp_path: Path, changes: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said) as caught:
        Driver(load_config(str(config_over(tmp_path, **changes))))
    assert "\n" not in str(caught.value)


def test_a_missing_config_file_is_one_line(tmp_path: Path):
    _, err = tagmill("plan", tmp_path / "none.yaml", code=2)
    assert "none.yaml" in one_line(err)


def test_unknown_beam_flags_and_refused_runners_say_why(tmp_path: Path):
    config = config_over(tmp_path)
    _, err = tagmill("run", config, "--", "--job_endpoin=x", code=2)
    assert "--job_endpoin" in one_line(err)
    _, err = tagmill("run", config, "--runner", "DaskRunner", code=2)
    assert "loses data" in one_line(err)


def test_a_second_run_does_nothing_and_verify_finds_damage(config: Path):
    run = config.parent / "run"
    before = parts_of(run)
    call("run", config, "--workers", 0)
    assert parts_of(run) == before
    victim = next((run / "tag").glob("*/*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-10])
    _, err = tagmill("verify", run, code=5)
    assert "damaged" in err
    victim.unlink()
    call("run", config, "--workers", 0)
    tagmill("verify", run)


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes(tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    few = {"part_size": 2, "duplicates": None, "embed": None}
    drive(config_over(whole, 24, **few))
    config = config_over(killed, 24, **few)
    process = start("run", config)
    run = killed / "run"
    deadline = time.monotonic() + 120
    while len(list(run.glob("localize/*/*.parquet"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = parts_of(run)
    assert len([name for name in before if name.startswith("localize/")]) >= 4
    tagmill("run", config)
    after = parts_of(run)
    assert {name: after[name] for name in before} == before, "a finished part was made again"
    assert shard_bytes(run) == shard_bytes(whole / "run")
    assert len(list(run.rglob(".tmp-*"))) <= 1


def test_hostile_input_is_dead_letters_and_nothing_is_lost(tmp_path: Path):
    write_squares(tmp_path / "data" / "good.tar", 6)
    chunk = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    huge = b"\x89PNG\r\n\x1a\n\x00\x00\x00\r" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    huge += b"\x00\x00\x00\x00IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    captions = ["", "x" * 1_000_000, "ein roter Würfel 🟥", "red square", 7]
    write_tar(
        tmp_path / "data" / "bad.tar",
        [
            ("huge.png", huge),
            ("broken.jpg", b"\xff\xd8\xff\xe0 no image"),
            ("psd.gif", b"8BPS"),
            ("words.json", json.dumps({"captions": captions}).encode()),
            ("words.png", next(iter(members("x", 77).values()))),
            ("twice.png", next(iter(members("x", 78).values()))),
            ("other.png", next(iter(members("x", 79).values()))),
            ("twice.png", next(iter(members("x", 80).values()))),
        ],
    )
    data = (tmp_path / "data" / "good.tar").read_bytes()
    (tmp_path / "data" / "half.tar").write_bytes(data[: len(data) // 2])
    config = write_config(tmp_path, max_dead_fraction=1.0)
    call("run", config, "--workers", 0)
    import duckdb

    dead = duckdb.sql(
        f"SELECT unit, reason, count(*) FROM '{tmp_path}/run/ingest/*/dead/*.parquet' GROUP BY ALL"
    ).fetchall()
    counts = {(unit, reason): count for unit, reason, count in dead}
    assert counts[("example", "image_too_large")] == 1
    assert counts[("example", "image_unreadable")] == 1
    assert counts[("example", "image_format")] == 1
    assert counts[("example", "key_repeated")] == 1
    assert counts[("example", "source_truncated")] >= 1
    assert counts[("caption", "caption_empty")] == 1
    assert counts[("caption", "caption_too_long")] == 1
    assert counts[("caption", "caption_not_text")] == 1
    for row in duckdb.sql(f"SELECT * FROM '{tmp_path}/run/report/stages.parquet'").fetchall():
        _, _, _, _, came, out, dropped, lost, captions_in, captions_out, captions_dead, *_ = row
        assert came == out + dropped + lost
        assert captions_in == captions_out + captions_dead


def test_too_many_dead_letters_stop_the_run(tmp_path: Path):
    write_tar(tmp_path / "data" / "a.tar", [("a.png", b"no"), ("b.png", b"no")])
    _, err = tagmill("run", write_config(tmp_path), "--workers", 0, code=3)
    assert "max_dead_fraction" in one_line(err)


def test_dry_run_shows_the_accelerator_hint_on_model_stages_alone(config: Path):
    out, _ = tagmill("run", config, "--set", "tag.score_floor=0.2", "--runner", "portable", "--dry-run")
    (hinted,) = [line for line in out.splitlines() if "accelerator" in line]
    assert hinted.strip().startswith("tag/")


@pytest.mark.skipif(what_is_missing("dataflow") is None, reason="the extra gcp is installed")
def test_dataflow_without_its_extra_can_be_shown_and_says_what_a_run_needs(config: Path):
    change = ("--set", "tag.score_floor=0.2", "--runner", "dataflow")
    out, _ = call("run", config, *change, "--dry-run")
    assert "tag/Tag" in out
    assert "pip install 'tagmill[gcp]'" in out.splitlines()[-1]
    _, err = call("run", config, *change, code=2)
    assert "pip install 'tagmill[gcp]'" in one_line(err)


def test_a_changed_source_is_refused_until_it_is_accepted(config: Path):
    write_squares(config.parent / "data" / "a.tar", 8, 100)
    _, err = tagmill("run", config, code=4)
    assert "--accept-changes" in one_line(err)
    call("run", config, "--accept-changes", "--workers", 0)
    tagmill("verify", config.parent / "run")


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (
            {"path": "nowhere", "weight": float("inf")},
            "data.datasets.0.weight: Input should be a finite number",
        ),
        ({"path": "nosuch://bucket/shards"}, "cannot be opened: Protocol not known: nosuch"),
    ],
    ids=["infinite", "store"],
)
def test_a_training_tells_a_bad_dataset_in_one_line(tmp_path, dataset, said):
    recipe = {"out": str(tmp_path / "out"), "data": {"batch_size": 2, "datasets": [dataset]}, "epochs": 1}
    recipe |= {"init": str(embedded() / "tagger"), "clip": {"model": f"local-dir:{embedded() / 'clip'}"}}
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(recipe | {"engine": {"device": "cpu"}}))
    _, err = call("train", path, code=2)
    assert said in one_line(err)
