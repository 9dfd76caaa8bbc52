"""Takedown: what is excluded leaves all of a run, no model is called for it, and nothing of it stays."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from commands import call
from counted_models import calls, counted
from runs import damaged, drive, plans, samples, squares_config, tagmill
from sources import members, write_tar
from tagmill.tag_system.core.errors import ConfigError

SECRET = "a secret word that nobody else has in mind"


def build(folder: Path, **changes: object) -> Path:
    """Two inputs of six parts; `a/000003` has a copy in the other input, and captions of its own."""
    tars: dict[str, dict[str, bytes]] = {"a": {}, "b": {}}
    for number in range(24):
        words = ["a red square", f"squares of number {number}"]
        tars["a" if number < 12 else "b"] |= members(f"{number:06d}", seed=number, captions=words)
    tars["a"]["000003.json"] = json.dumps({"captions": [f"a blue square, {SECRET}"]}).encode()
    tars["b"]["000017.png"] = tars["a"]["000003.png"]
    for name, contents in tars.items():
        write_tar(folder / "data" / f"{name}.tar", list(contents.items()))
    inputs = [
        {"name": name, "format": "webdataset", "path": str(folder / "data" / f"{name}*.tar")} for name in "ab"
    ]
    inputs[0]["exclude"] = str(folder / "exclude.txt")
    (folder / "exclude.txt").touch()
    features = {"model": "counted_models:Teacher", "options": {"log": str(folder / "calls")}}
    changes = counted(folder / "calls") | {"parse": {"mode": "fast"}, "features": features} | changes
    return squares_config(folder, {}, inputs=inputs, part_size=4, shards={"size": 8}, **changes)


def bytes_with(folder: Path, *needles: str) -> list[str]:
    """Files below a folder that hold any of these texts, in Parquet after it is unpacked."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
            if any(needle.encode() in data for needle in needles):
                found.append(str(path.relative_to(folder)))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("takedown")
    drive(build(folder))
    call("report", folder / "run", "--samples", 1)
    return folder


@pytest.fixture
def config(made, tmp_path):
    """A copy of a whole run, whose models write down what they are asked."""
    for name in ("run", "data"):
        shutil.copytree(made / name, tmp_path / name)
    return build(tmp_path)


def exclude(config: Path, *lines: str) -> None:
    (config.parent / "exclude.txt").write_text("".join(f"{line}\n" for line in lines))


def keys(config: Path) -> set[str]:
    return {sample["key"] for sample in samples(config.parent / "run")}


def image_of(config: Path, key: str) -> str:
    (digest,) = {sample["sha256"] for sample in samples(config.parent / "run") if sample["key"] == key}
    return digest


EVERYTHING = {f"{'a' if number < 12 else 'b'}/{number:06d}" for number in range(24)}
PAIR = {"a/000003", "b/000017"}


@pytest.mark.parametrize("named", ["key of the copy", "source"])
def test_all_copies_leave_all_of_a_run_without_a_model(config, named):
    run, image = config.parent / "run", image_of(config, "a/000003")
    tar = config.parent / "data" / "a.tar"
    line = f"source:{tar}" if named == "source" else "b/000017"
    assert any(path.startswith("report/site") for path in bytes_with(run, SECRET))
    exclude(config, "# by request", "", line)
    drive(config)
    assert calls(config.parent / "calls") == {}
    gone = {key for key in EVERYTHING if key < "b"} | PAIR if named == "source" else PAIR
    assert keys(config) == EVERYTHING - gone
    assert damaged(run) == []
    assert tagmill("verify", run, "--absent", config.parent / "exclude.txt").returncode == 5
    assert tagmill("gc", run).returncode == 0
    assert bytes_with(run, image, SECRET, *gone) == list(run.rglob("*.webp")) == []
    result = tagmill("verify", run, "--absent", config.parent / "exclude.txt")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(plan.is_whole for plan in plans(config).values())
    assert drive(config).jobs == []


def test_what_is_given_back_returns_and_is_asked_about_again(config):
    run = config.parent / "run"
    exclude(config, image_of(config, "a/000003"), "b/000020")
    drive(config)
    assert keys(config) == EVERYTHING - PAIR - {"b/000020"}
    tagmill("gc", run)
    exclude(config, "b/000020")
    drive(config)
    assert keys(config) == EVERYTHING - {"b/000020"}
    assert set(calls(config.parent / "calls")) == {"Captioner", "Embedder", "Localizer", "Tagger", "Teacher"}
    assert damaged(run) == []


def test_a_later_copy_of_what_a_key_led_to_stays_out(config):
    exclude(config, "a/000003")
    drive(config)
    image = members("x", seed=3)["x.png"]
    write_tar(
        config.parent / "data" / "b2.tar", [("new.png", image), ("other.png", members("x", 99)["x.png"])]
    )
    drive(config)
    assert keys(config) == EVERYTHING - PAIR | {"b/other"}


def test_a_new_key_in_the_list_takes_earlier_copies_along(config):
    """Of the same list: the copy lies in parts that were looked through before."""
    exclude(config, "b/new")
    drive(config)
    calls(config.parent / "calls")
    assert keys(config) == EVERYTHING
    image = members("x", seed=3)["x.png"]
    write_tar(config.parent / "data" / "b2.tar", [("new.png", image)])
    drive(config)
    assert keys(config) == EVERYTHING - PAIR
    assert calls(config.parent / "calls") == {}
    assert damaged(config.parent / "run") == []


def test_a_dead_example_and_a_stage_that_is_off_leave_nothing(config):
    run = config.parent / "run"
    write_tar(config.parent / "data" / "b2.tar", [("broken.png", b"no image"), ("broken.txt", b"words")])
    drive(config, "max_dead_fraction=1")
    assert bytes_with(run, "b/broken")
    exclude(config, "b/broken", "a/000003")
    drive(config, "max_dead_fraction=1", "features=null", "caption=null")
    tagmill("gc", run)
    assert bytes_with(run, "b/broken", "a/000003", SECRET) == []
    assert damaged(run) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("photo", r"exclude.txt:1: 'photo' names nothing; write the sha256"),
        ("c/000003", "names nothing"),
        (None, "No such"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(config, line, said):
    exclude(config, line or "")
    if line is None:
        (config.parent / "exclude.txt").unlink()
    with pytest.raises(ConfigError, match=said):
        drive(config)
