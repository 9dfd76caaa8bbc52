"""The base of all configs, and the YAML files that they are read from."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tagmill.tag_system.core.errors import ConfigError


class Config(BaseModel):
    """Base of configs: unknown keys are errors, values are fixed once read, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def changed(self) -> dict[str, Any]:
        """Give what differs from the defaults, as JSON values.

        Fingerprints hold this alone: a key that is added with a default, or a default that is written out,
        changes none. Whoever changes a default raises the version of the stage.
        """
        return self.model_dump(mode="json", exclude_defaults=True)


ConfigT = TypeVar("ConfigT", bound=Config)


def read_config(path: str, overrides: Sequence[str], config: type[ConfigT]) -> ConfigT:
    """Read a YAML file as a `config`; `overrides` are like `clean.policy.rule=paper` and go before it.

    Raises ConfigError, in one line for each thing that is wrong.
    """
    return check_values(path, read_values(path, overrides), config)


def check_values(where: str, values: dict[str, Any], config: type[ConfigT]) -> ConfigT:
    """Make a `config` of values that were read from `where`.

    Raises ConfigError, in one line for each thing that is wrong.
    """
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in _explain(error, config))) from error


class _YamlLoader(yaml.SafeLoader):
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
        values = yaml.load(text, _YamlLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, such as `run: runs/first`")
    for override in overrides:
        set_text(values, override, "--set")
    return values


def set_text(values: dict[str, Any], text: str, option: str) -> None:
    """Set what `key=value` says, its value in YAML; messages call it by the option that gave it.

    Raises ConfigError if it is not written so.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{option} {text}: write it as key=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} {text}: {value} is not YAML") from error
    set_value(values, key, parsed, f"{option} {text}")


def set_value(values: dict[str, Any], key: str, value: Any, name: str) -> None:
    """Set a dotted key, such as `clean.policy.rule`; messages call the override `name`.

    Raises ConfigError if a part of the key is not a section.
    """
    *path, last = key.split(".")
    for step in path:
        if values.get(step) is None:
            values[step] = {}
        values = values[step]
        if not isinstance(values, dict):
            raise ConfigError(f"{name}: {step} is not a section")
    values[last] = value


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
