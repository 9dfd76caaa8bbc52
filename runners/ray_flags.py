"""What a user asks of Ray: the flags after `--`, and the hints of model stages."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from apache_beam.transforms.resources import parse_resource_hints

from tagmill.tag_system.core.errors import ConfigError


@dataclass(frozen=True)
class RayFlags:
    """The cluster.

    Attributes:
        address: Its head as HOST:PORT; empty is the cluster that runs on this machine.
        node_timeout: Seconds to wait for a node that can take a stage's workers: autoscalers take minutes.
    """

    address: str = ""
    node_timeout: float = 300


@dataclass(frozen=True)
class RayHints:
    """What an actor of a model stage asks of its node; None is what suits the stage.

    Attributes:
        num_cpus: CPU cores.
        num_gpus: GPUs, at most one: a fraction lets several actors share one.
        memory: Bytes, by which Ray counts how many actors a node has room for.
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None


def parse_ray_flags(flags: Sequence[str]) -> RayFlags:
    """Read the flags after `--`. Raises ConfigError."""
    known: dict[str, Callable[[str], Any]] = {"--address": _address, "--node-timeout": _seconds}
    found: dict[str, Any] = {}
    for flag in flags:
        name, equals, value = flag.partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use {' or '.join(known)}"
            raise ConfigError(f"--runner ray does not know the flag {name}; {hint}")
        if not (equals and value):
            raise ConfigError(f"{name}: write it as {name}=VALUE")
        found[name.lstrip("-").replace("-", "_")] = known[name](value)
    return RayFlags(**found)


def parse_ray_hints(values: Sequence[str]) -> RayHints:
    """Read hints written as name=value; `none` asks for no GPU. Raises ConfigError."""
    if list(values) == ["none"]:
        return RayHints(num_gpus=0)
    hints = RayHints()
    for hint in values:
        name, _, value = hint.partition("=")
        if name == "memory":
            hints = replace(hints, memory=_bytes(hint, value))
        elif name == "num_cpus":
            hints = replace(hints, num_cpus=_number(hint, value, 1024, "cores, such as num_cpus=2"))
        elif name == "num_gpus":
            hints = replace(hints, num_gpus=_number(hint, value, 1, "a share of one GPU, such as 0.25"))
        else:
            raise ConfigError(f"--hint {hint}: on Ray use num_gpus=0.25, num_cpus=2 or memory=8GB")
    return hints


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ConfigError(
            f"--address={value}: use HOST:PORT of the cluster's head, as `ray start --head` says it"
        )
    return value


def _seconds(value: str) -> float:
    return _number(f"--node-timeout={value}", value, 1e6, "seconds", option="")


def _number(said: str, value: str, most: float, what: str, option: str = "--hint ") -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1
    if not 0 < number <= most:
        raise ConfigError(f"{option}{said}: give {what}")
    return number


def _bytes(said: str, value: str) -> int:
    try:
        (count,) = parse_resource_hints({"min_ram": value}).values()
    except ValueError as error:
        raise ConfigError(f"--hint {said}: write it as memory=8GB") from error
    return int(count)
