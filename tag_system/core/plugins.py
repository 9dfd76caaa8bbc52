"""Finds the classes that a config names: a short name of a built-in one, or `package.module:Class`."""

import difflib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tagmill.tag_system.core import secrets
from tagmill.tag_system.core.errors import ConfigError
from tagmill.tag_system.core.redaction import redacted

_asked: ContextVar[str] = ContextVar("_asked", default="code that the config names")


@contextmanager
def asked(what: str) -> Iterator[None]:
    """Ask code that somebody else wrote. Raises ConfigError if it would end the process."""
    before = _asked.set(what)
    try:
        yield
    except SystemExit as error:
        raise ConfigError(ended_by("sys.exit", error.code)) from error
    finally:
        _asked.reset(before)


@contextmanager
def hidden(modules: Sequence[str]) -> Iterator[None]:
    """Let modules seem not to be installed, unless they are imported already."""
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # as the import system knows it
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def ended_by(function: str, code: object) -> str:
    """Say that what is being asked would end the process by a function of Python, with an exit code."""
    call = f"{function}({'' if code is None else repr(code)})"
    return redacted(f"{_asked.get()} ends the process by {call}, and with it the run: take that out of it")


def create(
    kind: str, name: str, options: Mapping[str, Any], built_in: Mapping[str, str], needs: str = ""
) -> Any:
    """Construct what is called `name`: a short name of `built_in` or `package.module:Class`.

    `kind` is what messages call it, and `needs` what they say of a module that cannot be imported. Raises
    ConfigError if there is no such class, or if its constructor refuses the options.
    """
    return construct(kind, name, options, find(kind, name, built_in, needs))


def construct(kind: str, name: str, options: Mapping[str, Any], factory: Any) -> Any:
    """Construct what `find` found, its options' references to the environment resolved.

    Raises ConfigError if the constructor refuses the options, or a variable is not set.
    """
    try:
        with asked(f"{kind} {name!r}"):
            return factory(**secrets.resolve(options))
    except (TypeError, ValueError, FileNotFoundError) as error:
        said = redacted(str(error))
        raise ConfigError(f"{kind} {name!r} with options {dict(options)}: {said}") from error


def find(kind: str, name: str, built_in: Mapping[str, str], needs: str = "") -> Any:
    """Import the class that is called `name`. Raises ConfigError, see `create`."""
    module_name, class_name = place_of(kind, name, built_in)
    try:
        with asked(f"{kind} {name!r}"):
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{kind} {name!r}: cannot import {module_name} ({error}); install it or put its folder "
            f"on PYTHONPATH{needs}"
        ) from error
    factory = getattr(module, class_name, None)
    if factory is None:
        raise ConfigError(f"{kind} {name!r}: module {module_name} has no {class_name}")
    return factory


def place_of(kind: str, name: str, built_in: Mapping[str, str]) -> tuple[str, str]:
    """Give the module and the class that `name` names. Raises ConfigError for what is not such a name."""
    module_name, _, class_name = built_in.get(name, name).partition(":")
    if not (module_name and class_name):
        near = difflib.get_close_matches(name, built_in, n=1)
        hint = f"did you mean {near[0]}? Otherwise " if near else ""
        known = f"one of {', '.join(sorted(built_in))} or " if built_in else ""
        raise ConfigError(f"unknown {kind} {name!r}: {hint}use {known}your own class as package.module:Class")
    return module_name, class_name
