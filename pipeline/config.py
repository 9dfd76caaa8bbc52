"""The config of a run: one YAML file, checked whole before anything starts."""

import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from tagmill.tag_system.errors import ConfigError
from tagmill.transforms.caption import CaptionConfig
from tagmill.transforms.clean import CleanConfig
from tagmill.transforms.cluster import ClusterConfig
from tagmill.transforms.duplicates import DuplicatesConfig
from tagmill.transforms.embed import EmbedConfig
from tagmill.transforms.features import FeaturesConfig
from tagmill.transforms.ingest import IngestConfig
from tagmill.transforms.localize import LocalizeConfig
from tagmill.transforms.parse import ParseConfig
from tagmill.transforms.readers.base import InputConfig
from tagmill.transforms.shards import ShardsConfig
from tagmill.transforms.stage import StageConfig
from tagmill.transforms.tag import TagConfig

_log = logging.getLogger(__name__)


class RunConfig(StageConfig):
    """Everything a run is told. A stage whose section is null is switched off.

    `run` is the run's folder and `vocabulary` a vocabulary file (null: the built-in one); both, and the paths
    of inputs, are relative to the working directory. `part_size` is fixed for a run. `threads` is the number
    of threads of one worker, which is part of what decides results to the last bit. A tag that only the
    tagger names is a candidate from the score `candidate_floor` on: it is localized and decided on.
    `max_dead_fraction` of a stage's input may become dead letters before the run stops. With
    `strict_versions`, other versions of the libraries make everything anew.
    """

    run: str = Field(min_length=1)
    inputs: list[InputConfig] = Field(min_length=1)
    vocabulary: str | None = None
    part_size: int = Field(1_000, ge=1)
    threads: int = Field(1, ge=1, le=1024)
    candidate_floor: float = Field(0.3, ge=0, le=1)
    max_dead_fraction: float = Field(0.1, ge=0, le=1)
    strict_versions: bool = False
    ingest: IngestConfig = IngestConfig()
    duplicates: DuplicatesConfig | None = DuplicatesConfig()
    parse: ParseConfig | None = ParseConfig()
    caption: CaptionConfig | None = None
    tag: TagConfig | None = None
    localize: LocalizeConfig | None = None
    embed: EmbedConfig | None = None
    cluster: ClusterConfig | None = ClusterConfig()
    clean: CleanConfig = CleanConfig()
    shards: ShardsConfig = ShardsConfig()
    features: FeaturesConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        names = [source.name for source in self.inputs]
        if len(set(names)) < len(names):
            raise ValueError(f"inputs: two have the same name: {', '.join(names)}")
        for source in self.inputs:
            if source.images and source.format != "jsonl":
                raise ValueError(
                    f"input {source.name}: a {source.format} holds its images, so images is not for it"
                )
        if self.caption and not self.parse:
            raise ValueError("caption: needs the stage parse, which is switched off, to find its tags")
        if self.embed and not self.localize:
            raise ValueError("embed: needs the stage localize, which is switched off")
        if self.embed and self.embed.region_tagger != "off" and not self.tag:
            raise ValueError("embed.region_tagger: needs the stage tag, which is switched off")
        if self.shards.size < self.part_size:
            raise ValueError(f"shards.size: {self.shards.size} is less than part_size {self.part_size}")
        return self


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file; `overrides` are like `clean.policy.rule=paper`.

    Raises ConfigError, in one line for each thing that is wrong.
    """
    try:
        config = RunConfig.model_validate(read_values(path, overrides))
    except ValidationError as error:
        raise ConfigError(explain(path, error, RunConfig)) from error
    for line in _without_effect(config):
        _log.warning("%s: %s", path, line)
    return config


def _without_effect(config: RunConfig) -> Iterator[str]:
    """Say which thresholds lie under a floor of an earlier stage, which leaves nothing there to judge."""
    if config.tag is None:
        return
    if config.tag.score_floor > config.candidate_floor:
        floor = config.tag.score_floor
        yield f"candidate_floor: nothing scores under tag.score_floor {floor}; lower that too"
    policy = config.clean.policy
    for name in ("tagger_threshold", "unchecked_threshold"):
        threshold = getattr(policy, name)
        if threshold is not None and threshold < config.candidate_floor:
            yield (
                f"clean.policy.{name}: no candidate scores under candidate_floor {config.candidate_floor}; "
                "lower that too"
            )


class _Loader(yaml.SafeLoader):
    """Reads YAML in which no key stands twice: PyYAML would pass over the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    words = f"the key {key.value} stands there twice"
                    raise yaml.constructor.ConstructorError(None, None, words, key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


def read_values(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file of keys and values, and lay the overrides over it. Raises ConfigError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"no config file {path} (looked in {Path.cwd()})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    try:
        values = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, such as `run: runs/first`")
    for override in overrides:
        _override(values, override)
    return values


def explain(path: str, error: ValidationError, config: type[BaseModel]) -> str:
    """Say what is wrong with a file that should be a `config`, a line for each thing."""
    return "\n".join(f"{path}: {line}" for line in _explain(error, config))


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: write it as key=value")
    *path, last = key.split(".")
    for name in path:
        if values.get(name) is None:
            values[name] = {}
        values = values[name]
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {name} is not a section")
    try:
        values[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {value} is not YAML") from error


def _explain(error: ValidationError, config: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors():
        place = ".".join(str(step) for step in problem["loc"]) or "config"
        if problem["type"] == "extra_forbidden":
            yield f"unknown key {place}{_nearest(problem['loc'], config)}"
        elif problem["type"] == "missing":
            yield f"{place} is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            shown = "" if problem["type"] == "value_error" else f", got {problem['input']!r}"
            yield f"{message}{shown}" if place == "config" else f"{place}: {message}{shown}"


def _nearest(location: tuple[int | str, ...], config: type[BaseModel]) -> str:
    """Suggest the known key that is nearest to an unknown one, or name the known ones."""
    model: Any = config
    for step in location[:-1]:
        if isinstance(step, str):
            model = _section(model.model_fields[step].annotation)
    known = sorted(field.alias or name for name, field in model.model_fields.items())
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known keys here: {', '.join(known)}"


def _section(annotation: Any) -> Any:
    """Find the config class in an annotation such as `TagConfig | None` or `list[InputConfig]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for argument in get_args(annotation) if (found := _section(argument)))
