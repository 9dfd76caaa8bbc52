"""Workers: what makes one thing of a stage after another, and how Beam deals the tasks out to them.

Where the tasks of a job are independent of each other, an engine that is not Beam's may take the worker and
deal them out itself. A worker only ever creates files, and what is there already costs one look: any task may
be done twice, by whomever.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import apache_beam as beam

from tagmill.tag_system.core import files
from tagmill.transforms import failures, parts
from tagmill.transforms.stage import PartStage, PartTask, StageT, limit_threads, make_part

TaskT = TypeVar("TaskT")


class Worker(ABC, Generic[StageT, TaskT]):
    """Makes things of a stage in a generation's folder; one a process, which travels there pickled."""

    def __init__(self, stage: StageT, folder: str) -> None:
        self.stage = stage
        self.folder = folder

    def setup(self) -> None:
        """Get ready, once a process: load models, hold libraries to their threads."""
        with failures.noted(self.folder):
            limit_threads(self.stage.shared.threads)
            self.stage.setup()

    def do(self, task: TaskT) -> None:
        """Do one task, unless what it asks for is there. Raises whatever went wrong."""
        with failures.noted(self.folder):
            if not self.is_done(task):
                self.make(task)

    @abstractmethod
    def is_done(self, task: TaskT) -> bool:
        """Tell whether what a task asks for is there."""

    @abstractmethod
    def make(self, task: TaskT) -> None:
        """Make what a task asks for."""


class PartWorker(Worker[PartStage[Any], PartTask]):
    """Makes parts."""

    def is_done(self, task: PartTask) -> bool:
        """Look for the part: it is the last of its files."""
        return files.exists(parts.part_uri(self.folder, task.name))

    def make(self, task: PartTask) -> None:
        """Make a part and commit it."""
        make_part(self.stage, self.folder, task)


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
