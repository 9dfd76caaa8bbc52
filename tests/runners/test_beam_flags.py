import pytest
from apache_beam.options.pipeline_options import DirectOptions, PortableOptions

from tagmill.runners.beam_flags import OWN, parse_flags
from tagmill.tag_system.core.errors import ConfigError


def test_flags_of_beam_are_read_with_or_without_equals():
    options = parse_flags(["--job_endpoint", "localhost:1", "--environment_type=EXTERNAL"])
    portable = options.view_as(PortableOptions)
    assert (portable.job_endpoint, portable.environment_type) == ("localhost:1", "EXTERNAL")
    assert options.view_as(DirectOptions).direct_num_workers == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--job_endpiont=localhost:1"],
            "does not know the flag --job_endpiont; did you mean --job_endpoint?",
        ),
        (["--job_end=localhost:1"], "does not know the flag --job_end"),
        (["--qqqqqqqqqq"], "does not know the flag --qqqqqqqqqq"),
        (["stray"], "stray is not a Beam flag"),
        (["--job_endpoint=localhost:1", "stray"], "stray is not a Beam flag"),
        (["-x"], "-x is not a Beam flag"),
        (["--job_endpoint"], "expected one argument"),
    ],
)
def test_what_beam_would_only_warn_of_is_an_error_in_one_line(flags, words, capsys):
    with pytest.raises(ConfigError) as raised:
        parse_flags(flags)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("flag", OWN)
def test_flags_that_tagmill_sets_itself_are_refused(flag):
    with pytest.raises(ConfigError, match=f"{flag} is set by tagmill"):
        parse_flags([f"{flag}=x"])
