"""`tagmill plan --measure`: what a run will take, told from samples of it."""

import json
from pathlib import Path

import pytest

from commands import call
from runs import drive, rows_of, squares_config
from sources import members, write_tar
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.report import stage_row

PRICES = {
    "currency": "EUR",
    "cpu": {"cores": 2, "hour": 0.5},
    "gpu": {"cores": 4, "gpus": 1, "hour": 2.0},
    "gigabyte_month": 0.02,
}


ALONE = {"tag": None, "localize": None, "embed": None, "cluster": None}
"""Without models, where they do not matter."""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A run of 120 examples in two tars; every sixth of them is a copy of the one before."""
    folder = tmp_path_factory.mktemp("forecast")
    for tar in range(2):
        numbers = range(60 * tar, 60 * tar + 60)
        contents = [item for n in numbers for item in members(f"{n:06d}", n - (n % 6 == 5)).items()]
        write_tar(folder / "data" / f"{tar}.tar", contents)
    return squares_config(folder, {}, prices=PRICES)


def measured(config: Path, *options: object) -> dict:
    return json.loads(call("plan", config, "--json", "--measure", *options)[0])


def test_a_sample_tells_examples_losses_and_bytes_of_the_whole_run(config):
    found = measured(config, 64)
    run = config.parent / "run"
    assert not run.exists()
    drive(config)
    folder = RunFolder(str(run))
    assert found["examples"] == pytest.approx(120, rel=0.1)
    assert not found["counted"]
    for stage in found["stages"]:
        record = folder.read_record(stage["stage"], folder.current(stage["stage"]) or "")
        assert record is not None
        row = stage_row(folder, record)
        if record.parts:
            assert stage["examples"] == pytest.approx(row["examples_in"], rel=0.1)
            assert stage["gone"] == pytest.approx(row["examples_dropped"], abs=6)
            assert stage["bytes"] == pytest.approx(row["bytes"], rel=0.2)
        assert stage["cpu"] > 0
        assert stage["price"] == pytest.approx(
            stage["cpu"] / 3600 / (4 if stage["uses_model"] else 2) * (2.0 if stage["uses_model"] else 0.5)
        )
    assert len(rows_of(run, "duplicates")) == 20


def test_what_is_read_to_its_end_is_counted_and_what_is_named_is_believed(config, tmp_path):
    tars = {f"{number}.tar": (2, 2 * number) for number in range(10)}
    few = measured(squares_config(tmp_path, tars), 40)  # of eight of the ten
    assert (few["examples"], few["counted"], few["measured"]) == (20, False, 16)
    found = measured(config, 16, "--total", 1_000_000)
    assert found["stages"][0]["examples"] == found["examples"] == 1_000_000
    assert found["counted"]


def test_sources_of_several_folders_are_counted_as_what_they_are(tmp_path):
    tars = {f"{number % 2}/{number}.tar": (2, 2 * number) for number in range(10)}
    inputs = [{"name": "squares", "format": "webdataset", "path": str(tmp_path / "data" / "*" / "*.tar")}]
    assert measured(squares_config(tmp_path, tars, inputs=inputs, **ALONE), 40)["examples"] == 20


def test_where_images_lie_apart_the_user_says_how_many_there_are(tmp_path):
    lines = []
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(members("0", number)["0.png"])
        lines.append(json.dumps({"image": f"{number}.png", "captions": ["a red square"]}))
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    inputs = [{"name": "lines", "format": "jsonl", "path": str(tmp_path / "lines.jsonl")}]
    config = squares_config(tmp_path, {}, inputs=inputs, **ALONE)
    assert "say with --total" in call("plan", config, "--measure", 20, code=2)[1]
    assert measured(config, 20, "--total", 40)["examples"] == 40
    assert measured(config, 50)["counted"]  # to its end


def test_the_table_fits_and_too_few_are_refused(config):
    said = call("plan", config, "--measure", 16)[0]
    assert "EUR" in said
    assert "A month of the run's folder" in said
    assert "16 examples are the least" in call("plan", config, "--measure", 8, code=2)[1]
