"""A short form of fuzzing: readers of files that come from anywhere raise the project's own errors alone."""

import pytest

import fuzz


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_reader_raises_no_other_error_whatever_the_bytes(tmp_path, name):
    assert fuzz.shaken(name, 80, tmp_path) == []
