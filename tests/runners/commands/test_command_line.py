import re
from importlib.metadata import version

import pytest
from typer.main import get_command

from tagmill.runners import cli


def test_the_version_is_that_of_the_package(tagmill):
    assert tagmill("--version") == (0, f"tagmill {version('tagmill')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scroe"], "No such command 'scroe'. Did you mean 'score'?"),
        (["plan"], "Missing argument 'config'."),
        (["plan", "--foo"], "No such option: --foo"),
    ],
)
def test_a_wrong_command_line_is_one_line(tagmill, arguments, said):
    code, _, error = tagmill(*arguments)
    assert (code, error) == (2, f"tagmill: {said}\n")


def test_no_command_is_answered_by_the_help(tagmill):
    code, _, error = tagmill()
    assert code == 2
    assert error.startswith("Usage: ")


def test_the_help_has_every_command_on_a_shelf(tagmill):
    _, out, _ = tagmill("--help")
    shelves, shelf = {}, ""
    for line in out.splitlines():
        if found := re.fullmatch(r"(\w+):", line):
            shelf = found[1]
        elif found := re.match(r"  (\w+) ", line):
            shelves.setdefault(shelf, []).append(found[1])
    commands = [name for shelf, names in shelves.items() if shelf not in ("", "Options") for name in names]
    assert shelves["Evaluate"] == ["score", "tune"]
    assert sorted(commands) == sorted(
        name for name, command in get_command(cli.app).commands.items() if not command.hidden
    )
    assert "eval" not in commands


@pytest.mark.parametrize("name", ["eval", "calibrate"])
def test_an_old_name_works_and_says_the_new_one(tagmill, tmp_path, name):
    answers = [
        tagmill(*words, tmp_path / "none", "--out", tmp_path, "--shards", tmp_path / "none")
        for words in (["models", name], [name])
    ]
    assert answers[0][0] == 2
    note = f"tagmill: `tagmill {name}` is now `tagmill models {name}`; the next version drops the old name\n"
    assert answers[1] == (*answers[0][:2], note + answers[0][2])
