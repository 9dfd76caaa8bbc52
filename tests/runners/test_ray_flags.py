import pytest

from commands import call
from runs import squares_config
from tagmill.runners.ray_flags import RayFlags, RayHints, parse_ray_flags, parse_ray_hints
from tagmill.tag_system.core.errors import ConfigError


def test_flags_and_hints_are_read():
    assert parse_ray_flags([]) == RayFlags("", 300)
    assert parse_ray_flags(["--address=head:6379", "--node-timeout=20"]) == RayFlags("head:6379", 20)
    assert parse_ray_hints([]) == RayHints()
    assert parse_ray_hints(["none"]) == RayHints(num_gpus=0)
    asked = ["num_gpus=0.25", "num_cpus=2", "memory=8GB"]
    assert parse_ray_hints(asked) == RayHints(2, 0.25, 8_000_000_000)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--adress=head:6379", "does not know the flag --adress; did you mean --address?"),
        ("--job_endpoint=head:1", "does not know the flag --job_endpoint; use --address or --node-timeout"),
        ("--address", "--address: write it as --address=VALUE"),
        ("--address=head", "--address=head: use HOST:PORT of the cluster's head"),
        ("--address=ray://head:10001", "use HOST:PORT"),
        ("--node-timeout=soon", "--node-timeout=soon: give seconds"),
    ],
)
def test_a_flag_that_cannot_be_meant_is_refused(flag, words):
    with pytest.raises(ConfigError) as raised:
        parse_ray_flags([flag])
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        ("num_gpus=2", "give a share of one GPU"),
        ("num_cpus=0", "give cores"),
        ("memory=much", "write it as memory=8GB"),
        ("min_ram=8GB", "on Ray use num_gpus=0.25, num_cpus=2 or memory=8GB"),
    ],
)
def test_a_hint_that_ray_does_not_take_is_refused(hint, words):
    with pytest.raises(ConfigError, match=words):
        parse_ray_hints([hint])


def test_workers_are_not_counted_by_hand(tmp_path):
    _, err = call("run", squares_config(tmp_path), "--runner", "ray", "--workers", 2, code=2)
    assert err.startswith("tagmill: --workers is for the local runner")
