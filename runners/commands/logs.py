"""What is logged to standard error: our own warnings, and of Beam only errors."""

import logging
from typing import Any

from tagmill.runners.commands.terminal import guard_standard_error, json_line, safe, speak_json

NOISE = (
    "apitools not found",
    "No semi_persistent_directory found",
    "Discarding unparseable args",
    "Failed to read inputs in the data plane",
    "[while running '",
    "Failed to download weights for tag",
)
"""Words of Beam on its own extras and options, and of libraries on what ends a job, which its end reports."""


TWICE = ("gcsfs", "apache_beam.runners.dataflow.internal.apiclient")
"""Loggers of what raises the same that it logs, at every attempt."""


def configure_logging() -> None:
    """Set up logging for this process; to be called before Beam is imported, which logs while it is."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    for name in TWICE:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    handler.addFilter(_is_worth_reading)
    guard_standard_error()


def log_json() -> None:
    """Write warnings, and what `complain` says, as JSON lines on standard error from now on."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_JsonFormatter())
    speak_json()


class _JsonFormatter(logging.Formatter):
    """Writes a message as a JSON object in a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json_line(record.levelname.lower(), record.getMessage(), record.created, logger=record.name)


class _Formatter(logging.Formatter):
    """Writes a message as one line, whatever is in it, and a traceback as many."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        return safe(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # logging's name
        return safe(super().formatException(ei), keep="\n")

    def formatStack(self, stack_info: str) -> str:  # logging's name
        return safe(super().formatStack(stack_info), keep="\n")


def _is_worth_reading(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(words in message for words in NOISE)
