import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from commands import call
from runs import squares_config
from tagmill.runners.worker_pool import pool_of, take_pool_check
from tagmill.tag_system.core.errors import ConfigError


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (["--environment_type=DOCKER", "--environment_config=image:5"], None),
        ([], None),
        (["--environment_type=EXTERNAL", "--environment_config=host:5"], "host:5"),
        (["--environment_type=beam:env:external:v1", "--environment_config=[::1]:5"], "::1:5"),
        (["--environment_type=EXTERNAL", '--environment_config={"url": "host:5"}'], "host:5"),
        (["--environment_type=EXTERNAL", "--environment_options=external_service_address=host:5"], "host:5"),
    ],
)
def test_the_pool_is_found_however_beam_is_told_of_it(flags, place):
    pool = pool_of(PipelineOptions(flags))
    assert (None if pool is None else str(pool)) == place


@pytest.mark.parametrize("value", ["", "host", ":5", "host:70000", '{"uri": "host:5"}', "{"])
def test_an_address_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="needs --environment_config=HOST:PORT"):
        pool_of(PipelineOptions(["--environment_type=EXTERNAL", f"--environment_config={value}"]))


def test_the_check_is_ours_and_the_other_flags_beams():
    assert take_pool_check(["--a=b", "--pool-check=off"]) == (["--a=b"], False)
    assert take_pool_check(["--a=b"]) == (["--a=b"], True)


def test_a_misspelt_check_is_one_line(tmp_path):
    _, err = call("run", squares_config(tmp_path), "--runner=portable", "--", "--pool-check=no", code=2)
    assert err == "tagmill: --pool-check=no: write it as --pool-check=on or --pool-check=off\n"
