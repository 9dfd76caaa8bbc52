"""The config of a run: one YAML file, checked whole before anything starts."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field, model_validator

from tagmill.tag_system.core.config import Config, check_values, read_values
from tagmill.transforms.caption import CaptionConfig
from tagmill.transforms.clean import CleanConfig
from tagmill.transforms.cluster import ClusterConfig
from tagmill.transforms.duplicates import DuplicatesConfig
from tagmill.transforms.embed import EmbedConfig
from tagmill.transforms.features import FeaturesConfig
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.ingest import IngestConfig
from tagmill.transforms.localize import LocalizeConfig
from tagmill.transforms.parse import ParseConfig
from tagmill.transforms.shards import ShardsConfig
from tagmill.transforms.tag import TagConfig

_log = logging.getLogger(__name__)


class RunConfig(Config):
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
    return make_config(read_values(path, overrides), path)


def make_config(values: dict[str, Any], name: str) -> RunConfig:
    """Make a config of keys and values; messages call it `name`.

    Raises ConfigError, in one line for each thing that is wrong.
    """
    config = check_values(name, values, RunConfig)
    for line in _without_effect(config):
        _log.warning("%s: %s", name, line)
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
