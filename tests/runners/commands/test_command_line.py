from importlib.metadata import version

import pytest


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
