"""The config of a run: one YAML file, checked whole before anything starts."""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, model_validator

from tagmill.pipeline.prices import Prices
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
    label_map: str | None = None
    part_size: int = Field(1_000, ge=1)
    threads: int = Field(1, ge=1, le=1024)
    decode_threads: int | None = Field(None, ge=1, le=1024)
    candidate_floor: float = Field(0.3, ge=0, le=1)
    max_dead_fraction: float = Field(0.1, ge=0, le=1)
    strict_versions: bool = False
    reuse: list[str] = []
    prices: Prices = Prices()
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
    """The whole config of a run. A stage whose section is null is switched off.

    Paths are relative to the working directory.

    Attributes:
        run: The run's folder.
        inputs: The inputs, each with its format and sources.
        vocabulary: A vocabulary file; null is the built-in one.
        label_map: A file of given labels and the tags that they stand for.
        part_size: Most examples in a part; fixed for a run.
        threads: Threads of the numeric libraries in one worker; results depend on it in the last bits.
        decode_threads: Threads of one worker that read, decode and prepare images; None is as many.
        candidate_floor: Least score, 0..1, from which a tag that only the tagger names is a candidate.
        max_dead_fraction: Share of a stage's input, 0..1, that may become dead letters before the run stops.
        strict_versions: Whether other versions of the libraries make everything again.
        reuse: Folders of other runs, whose parts are taken where they are what would be made.
        prices: What machines cost, for `tagmill plan --measure`; nothing is made again for it.
        stages: Your own stages, and where they stand.
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
