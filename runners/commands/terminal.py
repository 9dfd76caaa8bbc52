"""The doors to a person's terminal: what is printed, said on standard error, and raised as a traceback.

Captions, keys, tags, file names and what plug-ins say come from anywhere. Whatever passes here is shown with
its control and invisible characters escaped and its secrets taken out; markup in it is text.
"""

import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tagmill.tag_system.core.redaction import redacted
from tagmill.tag_system.core.text import dump_json, shown


def safe(text: str, keep: str = "") -> str:
    """Write a text as a person may see it; see `shown` and `redacted`."""
    return shown(redacted(text), keep)


class OutputClosed(SystemExit):
    """Who reads what is printed has closed it, as `head` does."""


class Terminal(Console):
    """A console whose texts are one line each, but for those of a `Text`, and hold no markup unless asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"soft_wrap": True, "markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Make what is shown of a text: strings come here before they are measured."""
        return super().render_str(safe(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Give the pieces of what is shown, with what a `Text` brought along escaped as well."""
        for segment in super().render(renderable, options):
            if segment.control is None and not segment.text.isprintable():
                yield Segment(shown(segment.text, keep="\n"), segment.style)
            else:
                yield segment

    def on_broken_pipe(self) -> None:
        """End the command: nobody reads on."""
        try:
            super().on_broken_pipe()
        except SystemExit as error:
            raise OutputClosed from error


class _Voice:
    """How this process says what is wrong: in words for people, or in JSON for a log collector."""

    is_json = False


def speak_json() -> None:
    """Have `complain` write JSON lines from now on."""
    _Voice.is_json = True


def json_line(event: str, message: str, moment: float | None = None, **more: str) -> str:
    """Write an event as a JSON object in a line, as progress is written."""
    values = {"event": event, "time": moment or time.time(), "message": redacted(message)} | more
    return dump_json(values)


def complain(*lines: str) -> None:
    """Say on standard error what is wrong, a line each."""
    if _Voice.is_json:
        sys.stderr.write(json_line("error", "\n".join(lines)) + "\n")
        return
    said = "\n".join(safe(line) for line in lines)
    sys.stderr.write(f"tagmill: {said}\n")


def guard_standard_error() -> None:
    """Have what Python itself says there, tracebacks and warnings, shown as safely."""
    sys.excepthook = report_bug
    threading.excepthook = report_thread
    warnings.formatwarning = _warning


def report_thread(failure: threading.ExceptHookArgs) -> None:
    """Report what ends a thread."""
    if not issubclass(failure.exc_type, SystemExit):
        name = failure.thread.name if failure.thread else "a thread"
        sys.stderr.write(f"Exception in thread {safe(name)}:\n")
        report_bug(failure.exc_type, failure.exc_value, failure.exc_traceback)


def report_bug(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Report an error with its traceback."""
    said = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(safe(said, keep="\n"))


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{filename}:{lineno}: {category.__name__}: {safe(str(message))}\n"
