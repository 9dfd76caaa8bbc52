"""A worker process of the local runner: Beam's own, with our logging, stopped by its driver alone."""

import signal
import sys

from tagmill.runners.commands.logs import configure_logging


def main() -> None:
    """Work until the driver that started this process ends it."""
    # Ctrl-C in a terminal reaches the workers too; it is for the driver to end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logging()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
