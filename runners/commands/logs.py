"""What is logged to standard error: our own warnings, and of Beam only errors."""

import logging

NOISE = (
    "apitools not found",
    "No semi_persistent_directory found",
    "Discarding unparseable args",
    "Failed to read inputs in the data plane",
    "[while running '",
)
"""Beam's words on its own extras and options, and on what ends a job, which the job's own end reports."""


def configure_logging() -> None:
    """Set up logging for this process; to be called before Beam is imported, which logs while it is."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_worth_reading)


def _is_worth_reading(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(words in message for words in NOISE)
