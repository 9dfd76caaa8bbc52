"""Workers run the tasks of a stage one after the other; Beam, or another engine, hands the tasks to them.

Tasks are idempotent: a worker only creates files and skips a task whose file exists, so any task may run
twice, in any process.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import apache_beam as beam

from tagmill.tag_system.core import files
from tagmill.transforms import failures, parts
from tagmill.transforms.stage import (
    PartStage,
    PartTask,
    StageT,
    commit_part,
    limit_threads,
    make_part,
    process_part,
)


class Named(Protocol):
    """What all tasks have."""

    @property
    def name(self) -> str:
        """The name of what is to be made."""


TaskT = TypeVar("TaskT", bound=Named)


class Worker(ABC, Generic[StageT, TaskT]):
    """Runs the tasks of one stage in a process, and writes into the folder of the stage's generation.

    It is pickled to get there, and `setup` is called once in each process.
    """

    uses_model: bool | None = None
    """Whether a model is loaded; None if that is as in the stage."""

    def __init__(self, stage: StageT, folder: str) -> None:
        self.stage = stage
        self.folder = folder

    def setup(self) -> None:
        """Load models and limit the threads of libraries; called once in each process."""
        with failures.noted(self.folder), failures.at(self.folder, ""):
            limit_threads(self.stage.shared.threads)
            self.stage.setup()

    def do(self, task: TaskT) -> None:
        """Run one task, unless its output exists. Raises whatever the task raises."""
        with failures.noted(self.folder), failures.at(self.folder, task.name):
            if not self.is_done(task):
                self.make(task)

    @abstractmethod
    def is_done(self, task: TaskT) -> bool:
        """Tell whether the output of a task exists."""

    @abstractmethod
    def make(self, task: TaskT) -> None:
        """Make the output of a task."""


class PartWorker(Worker[PartStage[Any], PartTask]):
    """Makes the parts of a `PartStage`."""

    def is_done(self, task: PartTask) -> bool:
        """Look for the part: it is the last of its files."""
        return files.exists(parts.part_uri(self.folder, task.name))

    def make(self, task: PartTask) -> None:
        """Make a part and commit it."""
        make_part(self.stage, self.folder, task)


class ReuseWorker(PartWorker):
    """Makes parts of what they were before their inputs lost rows, where that can be; leaves the others."""

    uses_model = False

    def setup(self) -> None:
        """Load nothing."""

    def make(self, task: PartTask) -> None:
        """Make a part of an earlier one and commit it, or do nothing."""
        inputs = self.stage.read(task)
        if output := self.stage.reuse(inputs, task.origin):
            commit_part(self.stage, self.folder, task, inputs, output)


class Probe(PartWorker):
    """Makes parts and keeps nothing of them: it is known by whether the process lives."""

    def is_done(self, task: PartTask) -> bool:
        """Say that it never is."""
        return False

    def make(self, task: PartTask) -> None:
        """Process a part but for its lost rows."""
        process_part(self.stage, task, self.stage.read(task))


class _WorkFn(beam.DoFn):
    def __init__(self, worker: Worker[Any, Any]) -> None:
        self._worker = worker

    def setup(self) -> None:
        self._worker.setup()

    def process(self, element: Any) -> Iterable[str]:
        self._worker.do(element)
        yield element.name


class Deal(beam.PTransform):
    """Task -> its name, when it is done; the runner spreads the tasks over the workers."""

    def __init__(self, worker: Worker[Any, Any]) -> None:
        super().__init__()
        self._worker = worker

    def expand(self, tasks: beam.PCollection[Any]) -> beam.PCollection[str]:
        """Wire the one step."""
        return tasks | self._worker.stage.name.capitalize() >> beam.ParDo(_WorkFn(self._worker))
