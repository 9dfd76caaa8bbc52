"""A worker process of the local runner: Beam's own, with our logging, stopped by its driver alone."""

import signal
import sys
from typing import Any, TextIO

from tagmill.runners.commands.logs import configure_logging


class _WithoutEcho:
    """Standard error without the tracebacks of failed bundles: Beam also sends them to the driver."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_skipping = False

    def write(self, text: str) -> int:
        """Write a text, unless it is an echo or the end of its line."""
        was_skipping, self._is_skipping = self._is_skipping, "[while running '" in text
        if self._is_skipping or (was_skipping and text == "\n"):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main() -> None:
    """Work until the driver that started this process ends it."""
    # Ctrl-C in a terminal reaches the workers too; it is for the driver to end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging()
    sys.stderr = _WithoutEcho(sys.stderr)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
