"""What a command lacks: an extra that is not installed, a model that cannot be downloaded."""

import json
import re
import subprocess
import sys

import pytest

from commands import environment, tagmill
from sources import square_image, write_config, write_squares
from tagmill.runners.commands.demo import embedded

WITHOUT = "import sys; {}; from tagmill.runners.cli import main; main()"
TAGGER = embedded() / "tagger"


@pytest.fixture
def files(tmp_path):
    """An image, a config and a recipe."""
    square_image(["red"]).save(tmp_path / "a.png")
    write_squares(tmp_path / "data" / "a.tar", 2)
    write_config(tmp_path, tag={"model": "ram", "options": {"path": str(TAGGER)}})
    recipe = {"out": str(tmp_path / "out"), "init": str(TAGGER), "losses": {"terms": ["tagging"]}}
    recipe |= {"data": {"datasets": [{"path": str(tmp_path)}], "batch_size": 2}}
    (tmp_path / "train.yaml").write_text(json.dumps(recipe))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        (["predict", "a.png", "--model", str(TAGGER)], "torch", "models"),
        (["run", "config.yaml"], "timm", "models"),
        (["train", "train.yaml"], "torch", "models"),
        (["sql", "run", "FROM clean"], "duckdb", "sql"),
        (["demo"], "onnxruntime", "demo"),
    ],
)
def test_an_extra_that_is_missing_is_one_line_with_its_name(files, command, module, extra):
    code = WITHOUT.format(f"sys.modules[{module!r}] = None")  # as Python itself tells of what is not there
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *command],
        cwd=files,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"{module} is not installed: pip install 'tagmill[{extra}]'")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["predict", "a.png", "--model", "hf://owner/name"],
            "hf://owner does not do what it is asked: ",
        ),
        (["predict", "a.png", "--model", "owner/name"], "there is no model folder owner/name; of what is"),
        (
            ["train", "train.yaml", "--set", "init=hf://owner/name"],
            "hf://owner does not do what it is asked: ",
        ),
        (
            ["predict", "a.png", "--model", str(TAGGER), "--localizer", "owner/name"],
            "model 'owner/name' is not a local folder, .* and it cannot be downloaded .*; give the path of",
        ),
    ],
    ids=["address", "name", "start of a training", "localizer"],
)
def test_a_model_of_a_hub_that_is_not_here_is_one_line_that_says_what_to_do(
    files, monkeypatch, command, said
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("HF_HOME", str(files / "hub"))
    monkeypatch.chdir(files)
    _, err = tagmill(*command, code=2)
    (line,) = err.splitlines()
    assert re.search(said, line)
