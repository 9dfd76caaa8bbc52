"""The taggers that commands take: any that a run's config takes, by the same names and options."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tagmill.tag_system.core import secrets
from tagmill.tag_system.core.config import set_text
from tagmill.tag_system.core.errors import ConfigError

if TYPE_CHECKING:
    from tagmill.models.base import Tagger

MODEL = (
    "folder of a RAM, RAM++ or Tag2Text, or what a config's `tag` section names: ram, package.module:Class"
)

Options = Annotated[
    list[str] | None, typer.Option("--option", help="option of the model, key=value; again for more")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...; default: the model's own")]
Dtype = Annotated[
    str | None, typer.Option(help="compute in float32, bfloat16 or float16; default: the model's own")
]

Shared = TypeVar("Shared")


def construct(name: str, options: Sequence[str] | None, **others: Any) -> "Tagger":
    """Construct a tagger, its weights not read, of `key=value` options and those of `others` that are given.

    Raises ConfigError, see `create_tagger`.
    """
    from tagmill.models.base import create_tagger

    values = {key: value for key, value in others.items() if value is not None}
    for option in options or ():
        set_text(values, option, "--option")
    secrets.check_no_secrets("--option", values)
    return create_tagger(name, values)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Have a model that gave no numbers said to by its name, in a line."""
    try:
        yield
    except FloatingPointError as error:  # of so many images that it is the model
        raise ConfigError(f"model {name}: {error}") from error


def sharing(shared: type[Shared]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a dataclass; its first argument is the object of them.

    Typer reads options off a signature, and knows none but plain ones.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = [field.name for field in fields(shared)]  # type: ignore[arg-type]  # a dataclass
        _, *own = signature(command).parameters.values()
        common = signature(shared).parameters.values()
        parameters = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in (*common, *own)]

        @wraps(command)
        def run(**given: Any) -> None:
            command(shared(**{name: given.pop(name) for name in names if name in given}), **given)

        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate
