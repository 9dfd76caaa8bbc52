"""What `tagmill` shows of itself: its version, its commands by shelf, the new names of those that moved."""

import functools
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

SHELVES = {
    "Make": ("demo", "init", "plan", "run", "status", "gc", "verify"),
    "Look": ("inspect", "report", "sql", "diff", "export"),
    "Evaluate": ("score", "tune"),
    "Models": ("train", "predict", "models"),
    "Words": ("parse", "vocab"),
}


class ShelvedGroup(TyperGroup):
    """A group whose help lists its commands by shelf, in plain text."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each shelf, all with one width of names."""
        width = max(len(name) for names in SHELVES.values() for name in names)
        for shelf, names in SHELVES.items():
            with formatter.section(shelf):
                commands = [(name, self.commands[name]) for name in names]
                limit = formatter.width - 6 - width
                formatter.write_dl(
                    [(name.ljust(width), command.get_short_help_str(limit)) for name, command in commands]
                )


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tagmill {version('tagmill')}")
        raise typer.Exit


def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Turn image-caption pairs into image-tag datasets, offline."""


def renamed(command: Callable[..., None], old: str, new: str) -> Callable[..., None]:
    """Wrap a command for its old name, which says the new one on stderr."""

    @functools.wraps(command)
    def alias(*arguments: Any, **options: Any) -> None:
        sys.stderr.write(
            f"tagmill: `tagmill {old}` is now `tagmill {new}`; the next version drops the old name\n"
        )
        command(*arguments, **options)

    return alias
