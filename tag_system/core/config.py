"""The base of all configs, and the YAML files that they are read from."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from tagmill.tag_system.core import secrets
from tagmill.tag_system.core.errors import ConfigError

MAX_BYTES = 1 << 20
"""Size of the largest config file; a person writes a few thousand."""

MAX_DEPTH = 50
"""How deeply keys and lists may be nested."""

MAX_NODES = 50_000
"""Keys and values of a config, those that an alias stands for counted at each of its places."""

MAX_SHOWN = 100
"""Characters that a message quotes of a value."""


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
    _check_texts(where, values)
    secrets.check_no_secrets(where, values)
    try:
        return config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(*(f"{where}: {line}" for line in _explain(error, config))) from error


def _check_texts(where: str, value: Any, place: str = "", depth: int = 0) -> None:
    """Refuse what no path, library or file could take. Raises ConfigError."""
    at = f"{where}: {place}" if place else where
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        if "\0" in value:
            raise ConfigError(f"{at} holds a NUL character: leave it out")
        if not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value):
            raise ConfigError(f"{at} holds half of a surrogate pair, which is not a character: leave it out")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_texts(where, key, place, depth)
            _check_texts(where, item, f"{place}.{key}" if place else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check_texts(where, item, f"{place}.{number}" if place else str(number), depth + 1)


_TOO_MANY = f"more than {MAX_NODES:,} values, those of aliases counted at each of their places"


def _error(words: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, words, mark)


class _YamlLoader(yaml.SafeLoader):
    """Reads YAML in which no key stands twice: PyYAML would pass over the first in silence.

    What is nested too deeply, or too large once its aliases are written out, is an error too.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._count = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if self._depth > MAX_DEPTH:
            raise _error(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._count += 1
        if self._count > MAX_NODES:  # before the rest is read, which takes its time
            raise _error(_TOO_MANY, event.start_mark)
        if node is not None and not isinstance(event, yaml.AliasEvent):
            self._measure(node, event.start_mark)
        return node

    def _measure(self, node: yaml.Node, mark: yaml.Mark) -> None:
        """Count the values in a node, with all that aliases stand for. Those in it are counted already."""
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        if any(id(child) not in self._sizes for child in children):
            raise _error("an alias stands in what it stands for", mark)
        size = 1 + sum(self._sizes[id(child)] for child in children)
        if size > MAX_NODES:
            raise _error(_TOO_MANY, mark)
        self._sizes[id(node)] = size

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    raise _error(f"the key {_short(key.value)} stands there twice", key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        try:
            value = super().construct_yaml_int(node)
        except ValueError:
            value = None
        if value is None or abs(value) >> 64:
            raise _error(f"{_short(node.value)} is not a number of up to 64 bits", node.start_mark)
        return int(value)


_YamlLoader.add_constructor("tag:yaml.org,2002:int", _YamlLoader.construct_yaml_int)


def parse_yaml(data: str | bytes) -> Any:
    """Parse YAML of bounded size and depth. Raises ValueError, whose message is one line."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES:,} bytes")
    try:
        return yaml.load(text, _YamlLoader)
    except yaml.MarkedYAMLError as error:  # whose own text quotes the line, be it a password
        at = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise ValueError(f"{error.problem}{at}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(" ".join(str(error).replace(' in "<unicode string>"', "").split())) from error
    except (AttributeError, LookupError, TypeError) as error:  # how PyYAML fails at `!!timestamp x`
        raise ValueError("a value is not what its tag says") from error


def read_values(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file of keys and values, and lay the overrides over it. Raises ConfigError."""
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder: name a config file") from error
    except FileNotFoundError as error:
        raise ConfigError(f"no config file {path} (looked in {Path.cwd()})") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    try:
        values = parse_yaml(data)
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML that can be read: {error}") from error
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
        parsed = parse_yaml(value)
    except ValueError as error:
        raise ConfigError(f"{option} {key}: its value is not YAML: {error}") from error
    set_value(values, key, parsed, f"{option} {key}")


def set_value(values: dict[str, Any], key: str, value: Any, name: str) -> None:
    """Set a dotted key, such as `clean.policy.rule` or `inputs.0.path`; messages call the override `name`.

    Raises ConfigError if a part of the key is not a section, or a list has no such entry.
    """
    steps = key.split(".")
    place: Any = values
    for at, step in enumerate(steps[:-1]):
        where = _entry(place, step, ".".join(steps[:at]), name)
        found = place[where] if isinstance(place, list) else place.get(where)
        if found is None:
            found = {}
        elif isinstance(found, tuple):
            found = list(found)
        if not isinstance(found, dict | list):
            raise ConfigError(f"{name}: {'.'.join(steps[: at + 1])} is not a section")
        place[where] = found
        place = found
    place[_entry(place, steps[-1], ".".join(steps[:-1]), name)] = value


def _entry(place: dict[str, Any] | list[Any], step: str, path: str, name: str) -> Any:
    """Give the key or number under which a step of a dotted key leads on from `path`. Raises ConfigError."""
    if isinstance(place, dict):
        return step
    if step in (numbers := [str(number) for number in range(len(place))]):
        return int(step)
    has = f"its entries are {numbers[0]} to {numbers[-1]}" if numbers else "it is empty"
    raise ConfigError(f"{name}: {path} is a list without an entry {_short(step)}: {has}")


def _explain(error: ValidationError, config: type[BaseModel]) -> Iterator[str]:
    for problem in error.errors():
        place = ".".join(str(step) for step in problem["loc"]) or "config"
        if problem["type"] == "extra_forbidden":
            yield f"unknown key {place}{_nearest(problem['loc'], config)}"
        elif problem["type"] == "missing":
            yield f"{place} is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if problem["type"] == "value_error" else f", got {_short(repr(problem['input']))}"
            yield f"{message}{got}" if place == "config" else f"{place}: {message}{got}"


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _nearest(location: tuple[int | str, ...], config: type[BaseModel]) -> str:
    """Suggest the known key that is nearest to an unknown one, or name the known ones."""
    model: Any = config
    for step in location[:-1]:
        if isinstance(step, str):
            model = _section(_by_key(model)[step].annotation)
    known = sorted(_by_key(model))
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known keys here: {', '.join(known)}"


def _by_key(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Give a config's fields by the keys that a file has for them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _section(annotation: Any) -> Any:
    """Find the config class in an annotation such as `TagConfig | None` or `list[InputConfig]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(found for argument in get_args(annotation) if (found := _section(argument)))


def flatten(value: object, prefix: str = "") -> dict[str, object]:
    """Turn nested settings into dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, object] = {}
    for key, item in value.items():
        found |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return found
