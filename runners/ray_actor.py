"""What runs on the nodes of a Ray cluster: an actor, which is one process and does one task at a time."""

import gc
import logging
import os
import pickle
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from tagmill.runners.commands.logs import configure_logging
from tagmill.runners.local import LocalEngine
from tagmill.runners.worker import ONE_THREAD, import_alone
from tagmill.tag_system.core import files
from tagmill.transforms.deadline import wind


@dataclass(frozen=True)
class Versions:
    """What has to be equal on all machines of a run."""

    tagmill: str
    python: str

    @classmethod
    def here(cls) -> "Versions":
        """Give those of this process."""
        return cls(metadata.version("tagmill"), ".".join(platform.python_version_tuple()[:2]))


@dataclass(frozen=True)
class NodeReport:
    """What an actor finds where it was put.

    Attributes:
        node: Ray's id of the node.
        host: The node's name.
        sees_run: Whether it finds a file that the driver has just written into the run folder.
        versions: What is installed there.
    """

    node: str
    host: str
    sees_run: bool
    versions: Versions


@dataclass(frozen=True)
class Outcome:
    """How a call went: warnings to pass on, as (logger, level, message), and the traceback of a failure."""

    warnings: list[tuple[str, int, str]] = field(default_factory=list)
    failure: str = ""


class _Collector(logging.Handler):
    """Keeps warnings for the driver, where somebody reads them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.kept: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[tuple[str, int, str]]:
        taken, self.kept = self.kept, []
        return taken


class TaskActor:
    """Does the tasks of one job on a node.

    Args:
        path: Where the driver finds modules.
        directory: The driver's working directory, which Ray would let modules be imported from.
    """

    def __init__(self, path: Iterable[str], directory: str) -> None:
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
        configure_logging()
        logging.captureWarnings(True)
        self._collector = _Collector()
        for heard in logging.getLogger().handlers[0].filters:
            self._collector.addFilter(heard)
        logging.getLogger().addHandler(self._collector)
        # What is installed on the node comes first; plug-ins of a shared folder are found as well.
        kept = [folder for folder in sys.path if folder != directory]
        sys.path[:] = kept + [folder for folder in path if folder not in kept and os.path.isdir(folder)]
        self._worker: Any = None
        wind()
        threading.Thread(target=_end_with, args=[os.getppid()], name="watch the node", daemon=True).start()

    def look(self, uri: str) -> NodeReport:
        """Say where this is, and whether a file of the driver is there."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return NodeReport(node, socket.gethostname(), files.exists(uri), Versions.here())

    def begin(self, worker: bytes, imports_alone: Mapping[str, Iterable[str]]) -> Outcome:
        """Take a worker, which loads its model."""

        def take() -> None:
            self._forget()
            import_alone(imports_alone)
            self._worker = pickle.loads(worker)
            self._worker.setup()

        return self._outcome(take)

    def do(self, task: Any) -> Outcome:
        """Do one task."""
        return self._outcome(lambda: self._worker.do(task))

    def run(self, job: bytes) -> Outcome:
        """Run a job whose tasks depend on each other."""
        self._forget()
        return self._outcome(lambda: LocalEngine(0, PipelineOptions([])).execute(pickle.loads(job)))

    def _forget(self) -> None:
        """Drop the worker of an earlier job, and with it the memory that its model takes."""
        self._worker = None
        gc.collect()

    def _outcome(self, work: Callable[[], None]) -> Outcome:
        try:
            work()
        except Exception:  # noqa: BLE001  the driver raises it
            return Outcome(self._collector.take(), traceback.format_exc())
        return Outcome(self._collector.take())


def _end_with(parent: int) -> None:
    """End this process once Ray's process of the node is gone: nobody else would, and a GPU stays taken."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
