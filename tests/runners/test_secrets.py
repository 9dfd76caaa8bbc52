"""What is secret or hostile in a run, from the config to every file and every line that a person reads."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from commands import call, tagmill
from sources import encode, square_image, write_config, write_squares, write_tar
from tagmill.models.training.recipe import Recipe
from tagmill.runners.api.config import load_config
from tagmill.tag_system.core.config import read_config
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.text import shown
from telling_models import ODD

WORD = "s3cr3t-w0rd-of-mine"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("TELLING_WORD", WORD)

    def config(**options):
        write_squares(tmp_path / "data" / "a.tar", 6)
        own = {"token": "${ENV:TELLING_WORD}", "server": "https://me:${ENV:TELLING_WORD}@host/x", **options}
        tag = {"model": "telling_models:TellingTagger", "options": own}
        return write_config(
            tmp_path, tag=tag, parse=None, localize=None, embed=None, cluster=None, max_dead_fraction=0.5
        )

    return config


def everything_in(folder: Path) -> bytes:
    """All bytes of all files, and the texts of tables, whose pages are compressed."""
    found = b""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found += path.read_bytes()
            if path.suffix == ".parquet":
                found += (
                    str(pq.read_table(path).to_pylist()).encode()
                    + str(pq.read_schema(path).metadata).encode()
                )
    return found


def test_a_token_is_used_and_written_nowhere(config, tmp_path):
    old = os.umask(0o007)
    try:
        out, err = tagmill("run", config())
    finally:
        os.umask(old)
    assert "logged ${ENV:TELLING_WORD} for https://" in err
    assert "wrote ${ENV:TELLING_WORD}" in err
    written = everything_in(tmp_path / "run")
    assert b"telling ${ENV:TELLING_WORD}" in written
    assert b"one failed at https://" in written  # the dead letter of the first image
    for place in (out.encode(), err.encode(), written):
        assert WORD.encode() not in place
    for text in (out, err):
        assert shown(text, keep="\n") == text
    modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert modes == {"0o660"}
    assert "up to date" in tagmill("plan", tmp_path / "config.yaml")[0]
    assert WORD not in "".join(
        tagmill("status", tmp_path / "run") + tagmill("inspect", tmp_path / "run", "squares/000000")
    )


def test_another_value_of_the_variable_changes_nothing(config, monkeypatch, tmp_path):
    path = config()
    call("run", path, "--workers", 0)
    monkeypatch.setenv("TELLING_WORD", "another-w0rd")
    said, _ = call("plan", path)
    assert "make" not in said.replace("`tagmill run` makes it", "")


@pytest.mark.parametrize("options", [{"refuses": True}, {"fails": True}], ids=["constructor", "prediction"])
def test_an_error_of_a_plug_in_is_shown_without_its_token(config, options):
    code = 2 if "refuses" in options else 1
    out, err = tagmill("run", config(**options), code=code)
    assert r"\x1b[2J\x9b31m\u202egnp\u200b" in err
    for text in (out, err):
        assert WORD not in text
        assert shown(text, keep="\n\t") == text


def test_a_variable_that_is_not_set_is_one_line(config, monkeypatch):
    path = config()
    monkeypatch.delenv("TELLING_WORD")
    _, err = tagmill("run", path, code=2)
    assert "the environment variable TELLING_WORD is not set" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tag.options.token", "abc123"),
        ("tag.options.storage.secretAccessKey", "abc123"),
        ("tag.options.name", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345"),
        ("tag.options.name", "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz012345"),
        ("tag.options.name", "AKIAIOSFODNN7EXAMPLE"),
        ("tag.options.name", "sk-proj-abcdefghijklmnop"),
        ("tag.options.hosts", ["https://me:word@host/x"]),
        ("inputs.0.path", "https://host/x.tar?X-Amz-Signature=0123abc"),
        ("inputs.0.options.password", 12345),
        ("run", "ftp://me:word@host/run"),
        ("vocabulary", "https://host/v.tsv?sv=1&sig=abc"),
    ],
)
def test_a_secret_in_clear_is_refused_in_a_line_that_does_not_quote_it(tmp_path, key, value):
    values = json.loads(write_config(tmp_path).read_text())
    *path, last = key.split(".")
    place = values
    for step in path:
        place = place[int(step)] if step.isdecimal() else place.setdefault(step, {})
    place[last] = value
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    _, err = call("run", tmp_path / "config.yaml", code=2)
    assert f"{key}" in err
    assert "looks like a secret in clear; write ${ENV:NAME} in its place" in err
    assert len(err.splitlines()) == 1
    for word in value if isinstance(value, list) else [value]:
        assert str(word) not in err
    with pytest.raises(ConfigError, match="secret in clear"):
        load_config(values)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wandb.api_key", "abc"),
        ("clip.token", "abc"),
        ("data.datasets", ["s3://a:b@c/d"]),
        ("out", "hf_abc0123456789"),
    ],
)
def test_a_training_takes_no_secret_in_clear(tmp_path, key, value):
    (tmp_path / "c.yaml").write_text("out: out\n")
    with pytest.raises(ConfigError, match=rf"{key}.* looks like a secret in clear"):
        read_config(str(tmp_path / "c.yaml"), [f"{key}={json.dumps(value)}"], Recipe)


def test_an_option_of_the_command_line_that_is_a_secret_is_refused(tmp_path):
    square_image(["red"]).save(tmp_path / "a.png")
    model = ["--model", "telling_models:TellingTagger", "--option"]
    _, err = tagmill("predict", tmp_path / "a.png", *model, "token=abc123", code=2)
    assert "--option: token looks like a secret in clear" in err
    assert "abc123" not in err


def test_what_comes_from_anywhere_is_shown_escaped_at_every_door(tmp_path):
    caption = f"a red square {ODD}\u2028[bold]:dog:[/bold]\rtagmill: all is well"
    fields = {"captions": [caption], "truth": [f"red{ODD}"]}
    contents = [
        (f"a{ODD}.png", encode(square_image(["red"]))),
        ("b.png", encode(square_image(["red"]))),
        ("b.json", json.dumps(fields).encode()),
        (f"c{ODD}.png", b"broken"),
    ]
    write_tar(tmp_path / "data" / "a.tar", contents)
    parse = {"mode": "fast"}
    path = write_config(tmp_path, parse=parse, localize=None, embed=None, cluster=None, max_dead_fraction=0.9)
    doors = [
        ("plan", path),
        ("run", path),
        ("run", path, "--log-format", "json", "--set", "candidate_floor=0.4"),
        ("status", tmp_path / "run"),
        ("inspect", tmp_path / "run", "squares/b"),
        ("verify", tmp_path / "run"),
        ("gc", tmp_path / "run"),
        ("predict", tmp_path / f"x{ODD}.png", "--model", "square_models:SquareTagger"),
        ("predict", tmp_path / f"x{ODD}.png", "--model", "square_models:SquareTagger", "--json"),
    ]
    square_image(["red"]).save(tmp_path / f"x{ODD}.png")
    for door in doors:
        out, err = tagmill(*door)
        for text in (out, err):
            assert shown(text, keep="\n") == text, door
        if "inspect" in door:
            assert r"a red square \x1b[2J\x9b31m\u202egnp\u200b\u2028[bold]:dog:[/bold]\rtagmill: all" in out
    for door in [
        ("inspect", tmp_path / "run", f"squares/{ODD}\ntagmill: all is well"),
        ("status", tmp_path / f"{ODD}\nfake"),
        ("plan", f"{ODD}\nfake.yaml"),
        ("plan", path, "--set", f"tag.{ODD}\nfake=1"),
        ("plan", path, "--set", f'vocabulary="{ODD}\\nfake"'),
        ("predict", f"{ODD}\nfake.png", "--model", f"{ODD}\nfake"),
    ]:
        _, err = tagmill(*door, code=2)
        assert shown(err, keep="\n") == err, door
        assert len(err.splitlines()) == 1, door
