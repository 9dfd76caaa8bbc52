"""The config of a run: one YAML file, checked whole before anything starts."""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, model_validator

from tagmill.pipeline.stages import STAGES, OwnStage, order, sections
from tagmill.tag_system.core.config import Config, check_values, read_values
from tagmill.tag_system.core.errors import ConfigError
from tagmill.transforms.formats.base import InputConfig

_log = logging.getLogger(__name__)


class _Keys(Config):
    """The keys of a run's config that are not a stage's section."""

    run: str = Field(min_length=1)
    inputs: list[InputConfig] = Field(min_length=1)
    vocabulary: str | None = None
    part_size: int = Field(1_000, ge=1)
    threads: int = Field(1, ge=1, le=1024)
    candidate_floor: float = Field(0.3, ge=0, le=1)
    max_dead_fraction: float = Field(0.1, ge=0, le=1)
    strict_versions: bool = False
    stages: list[OwnStage] = []


if TYPE_CHECKING:

    class _Sections(_Keys):
        def __getattr__(self, name: str) -> Any: ...

else:

    def _section(stage: type, use: str) -> tuple[Any, Any]:
        """Give the type and the default of a stage's section."""
        config = stage.config_class()
        if use == "always":
            return config, config()
        return config | None, config() if use == "on" else None

    _Sections = create_model(
        "_Sections",
        __base__=_Keys,
        **{stage.name: _section(stage, use) for stage, use in STAGES.items() if use != "implied"},
    )


class RunConfig(_Sections):
    """Everything a run is told. A stage whose section is null is switched off.

    `run` is the run's folder and `vocabulary` a vocabulary file (null: the built-in one); both, and the paths
    of inputs, are relative to the working directory. `part_size` is fixed for a run. `threads` is the number
    of threads of one worker, which is part of what decides results to the last bit. A tag that only the
    tagger names is a candidate from the score `candidate_floor` on: it is localized and decided on.
    `max_dead_fraction` of a stage's input may become dead letters before the run stops. With
    `strict_versions`, other versions of the libraries make everything anew. `stages` are own stages, between
    the engine's.
    """

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        names = [source.name for source in self.inputs]
        if len(set(names)) < len(names):
            raise ValueError(f"inputs: two have the same name: {', '.join(names)}")
        try:
            values = sections(self)
            for stage in order(self.stages):
                stage.check(values)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def remarks(self) -> Iterator[str]:
        """Say what works, but most likely not as it was meant."""
        values = sections(self)
        for stage in order(self.stages):
            yield from stage.remarks(values)


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
    for line in config.remarks():
        _log.warning("%s: %s", name, line)
    return config
