"""Config files that are not what they should be: each is one line, in little time and memory."""

import resource
import time
from pathlib import Path

import pytest

from tagmill.tag_system.core.config import MAX_BYTES, Config, parse_yaml, read_config
from tagmill.tag_system.core.errors import ConfigError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


class Some(Config):
    """A config."""

    name: str = ""
    number: int = 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: " + b"[" * 20_000, "nested deeper than 50 levels"),
        (b"name: " + b"[" * 20_000 + b"]" * 20_000, "nested deeper than 50 levels"),
        (b"- " * 20_000 + b"x", "nested deeper than 50 levels"),
        (b"? " * 20_000 + b"x", "nested deeper than 50 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(900)).encode(), "nested deeper than 50 levels"),
        (LAUGHS.encode(), "more than 50,000 values"),
        (MERGES.encode(), "more than 50,000 values"),
        (b"name: [" + b"x," * 100_000 + b"]", "more than 50,000 values"),
        (b"name: &a [*a]", "an alias stands in what it stands for"),
        (b"name: &a {b: *a}", "an alias stands in what it stands for"),
        (b"name: " + b"x" * MAX_BYTES, "longer than"),
        (b"number: " + b"9" * 5_000, "not a number of up to 64 bits"),
        (b"number: 0x" + b"f" * 5_000, "not a number of up to 64 bits"),
        (b"number: 1" + b":1" * 2_000, "not a number of up to 64 bits"),
        (b"name: a\0b", "special characters are not allowed"),
        (b'name: "a\\0b"', "name holds a NUL character"),
        (b'name: "\\ud800"', "half of a surrogate pair"),
        (b"name: \xff\xfe", "byte 6 is not UTF-8"),
        ("name: x".encode("utf-16"), "not UTF-8"),
        (b"name: 2020-13-45", "month must be in"),
        (b"name: !!timestamp x", "not what its tag says"),
        (b"name: !!bool x", "not what its tag says"),
        (b"? [name]\n: x", "unhashable key"),
        (b"1: x", "Keys should be strings"),
        (b"a: 1\n---\nb: 2", "another document"),
        (b'name: "a\\nb: \\e[2J"\nother\\x: 1', "unknown key"),
        (b"number: " + b"x" * 100_000, "number"),
    ],
)
def test_what_cannot_be_read_is_one_short_line(tmp_path, content, said):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ConfigError, match=said) as raised:
        read_config(str(path), [], Some)
    assert time.monotonic() - began < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 500 + len(str(path))


@pytest.mark.parametrize("value", ["[" * 20_000, "9" * 5_000, "a\0b", "!!timestamp x", "\udc80"])
def test_an_override_is_read_as_carefully(tmp_path, value):
    (tmp_path / "c.yaml").write_text("name: x")
    with pytest.raises(ConfigError) as raised:
        read_config(str(tmp_path / "c.yaml"), [f"name={value}"], Some)
    assert "name" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_an_override_of_many_steps_is_one_line(tmp_path):
    (tmp_path / "c.yaml").write_text("name: x")
    with pytest.raises(ConfigError, match="deeper than 50 levels"):
        read_config(str(tmp_path / "c.yaml"), ["a." * 20_000 + "b=1"], Some)


def test_what_is_not_a_file_is_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", Path("/dev/null/x"), tmp_path / ("x" * 5_000)):
        with pytest.raises(ConfigError) as raised:
            read_config(str(path), [], Some)
        assert len(str(raised.value).splitlines()) == 1


def test_aliases_and_numbers_that_are_meant_are_read():
    assert parse_yaml("a: &a [1, 0x10, -7, 18446744073709551615]\nb: *a\nc: {<<: {x: 1}, y: 1e3}") == {
        "a": [1, 16, -7, 2**64 - 1],
        "b": [1, 16, -7, 2**64 - 1],
        "c": {"x": 1, "y": "1e3"},
    }
