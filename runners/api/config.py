"""Configs and plans of runs, for callers in Python."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tagmill.pipeline.config import RunConfig, make_config
from tagmill.pipeline.run import Driver
from tagmill.runners.commands.inspection import plan_lines
from tagmill.tag_system.core.config import read_values, set_value

ConfigLike: TypeAlias = RunConfig | Mapping[str, Any] | str | os.PathLike[str]
"""A config, its keys and values, or the path of its YAML file."""


def load_config(source: ConfigLike, /, **overrides: Any) -> RunConfig:
    """Read and check the config of a run.

    Args:
        source: A YAML file, its keys and values as a dictionary, or a config to change.
        **overrides: Keys that go before those of `source`. A dotted key reaches into a section, and None
            switches a stage off.

    Returns:
        The config; it cannot be changed.

    Raises:
        ConfigError: Something is wrong with it; the message has one line for each thing.

    Examples:
        >>> photos = {"name": "photos", "format": "folder", "path": "/data/photos"}
        >>> config = load_config({"run": "runs/first", "inputs": [photos]}, part_size=500, duplicates=None)
        >>> config.part_size, config.duplicates
        (500, None)
        >>> load_config(config, **{"clean.policy.rule": "paper"}).clean.policy.rule
        'paper'
    """
    if isinstance(source, RunConfig):
        name, values = "config", source.model_dump()
    elif isinstance(source, Mapping):
        name, values = "config", _plain(source)
    else:
        name = os.fspath(source)
        values = read_values(name)
    for key, value in overrides.items():
        set_value(values, key, _plain(value), f"the override {key}")
    return make_config(values, name)


def _plain(value: Any) -> Any:
    """Copy nested values; a path becomes text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def checked(config: ConfigLike) -> RunConfig:
    """Load what is not a config yet."""
    return config if isinstance(config, RunConfig) else load_config(config)


@dataclass(frozen=True)
class StageOutlook:
    """What a run would make of one stage.

    Attributes:
        stage: The stage's name.
        is_whole: There is nothing to make.
        done: How many of its units are in place: parts, for ingest sources, for shards and features shards.
        total: How many there will be, as far as that is known.
        text: The same in words, with the reasons.
    """

    stage: str
    is_whole: bool
    done: int
    total: int
    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class RunOutlook:
    """What a run would make, stage by stage, in order."""

    stages: tuple[StageOutlook, ...]

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to make."""
        return all(stage.is_whole for stage in self.stages)

    def __iter__(self) -> Iterator[StageOutlook]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.stages))


def plan(config: ConfigLike, *, accept_changes: bool = False, check_sources: bool = False) -> RunOutlook:
    """Say what `run` would make, and why; nothing is written.

    Args:
        config: A config, its keys and values, or the path of its YAML file.
        accept_changes: Plan to make the parts of changed source files again and to drop those of missing
            ones, instead of refusing.
        check_sources: Read sources and images again that look unchanged by size and time.

    Returns:
        The outlook of each stage, in order; printed, it says what `tagmill plan` says.

    Raises:
        ConfigError: The config does not hold, or a model cannot be had.
        InputChangedError: A source file is missing, or another one than the run has read.

    Examples:
        >>> photos = {"name": "photos", "format": "folder", "path": "photos"}
        >>> outlook = plan({"run": "runs/new", "inputs": [photos]})
        >>> outlook.is_whole
        False
        >>> for stage in outlook:
        ...     print(stage)  # doctest: +ELLIPSIS
        ingest: make 1 of 1 sources
          .: new source
        duplicates: all or some of its parts, as its inputs are made
        ...
        shards: all or some of its shards, as its inputs are made
    """
    driver = Driver(checked(config), accept_changes=accept_changes, check_sources=check_sources)
    stages = []
    for found in driver.plan():
        text = "\n".join(plan_lines(driver, found))
        done, total, _ = driver.extent(found)
        stages.append(StageOutlook(found.stage.name, found.is_whole, done, total, text))
    return RunOutlook(tuple(stages))
