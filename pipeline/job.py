"""Jobs of stages, and the engines that run them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

import apache_beam as beam

from tagmill.tag_system.core import files
from tagmill.transforms.stage import Stage
from tagmill.transforms.task_file import FOLDER, PartOrder, ReadTasks, write_tasks
from tagmill.transforms.worker import Deal, Worker

MOST_IN_GRAPH = 2_000
"""Tasks that a job for other machines holds itself, of some hundred bytes each: Dataflow takes 10 MB."""


class Engine(Protocol):
    """Runs jobs: on this machine, or by a Beam runner."""

    def execute(self, job: "Job") -> None:
        """Run one job to its end. Raises the error that made it fail."""


@dataclass(frozen=True)
class Job:
    """Tasks of a stage, and the Beam graph that does them.

    Attributes:
        stage: The stage.
        tasks: What to do.
        folder: Folder in which workers note their failures.
        graph: Gives the Beam transform from tasks to results, for the order of the tasks.
        worker: Does one task after the other, for engines without Beam; None if tasks depend on each other.
        is_trial: Whether it shows what the rest would cost in dead letters.
    """

    stage: Stage[Any]
    tasks: list[Any]
    folder: str
    graph: Callable[[PartOrder], beam.PTransform]
    worker: Worker[Any, Any] | None = None
    is_trial: bool = False

    @classmethod
    def of_worker(cls, tasks: list[Any], worker: Worker[Any, Any], *, is_trial: bool = False) -> "Job":
        """Make a job of independent tasks."""
        return cls(worker.stage, tasks, worker.folder, partial(_deal, worker), worker, is_trial)

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.stage.name

    @property
    def uses_model(self) -> bool:
        """Whether the job needs an accelerator."""
        if self.worker is not None and self.worker.uses_model is not None:
            return self.worker.uses_model
        return self.stage.uses_model

    def build(
        self, pipeline: beam.Pipeline, hints: Mapping[str, str] | None = None, stored: str = ""
    ) -> None:
        """Add the job to a pipeline.

        Args:
            pipeline: The pipeline.
            hints: Beam's resource hints for the stage's own step.
            stored: A file that holds the tasks, see `store_tasks`; without one the pipeline holds them.
        """
        transform = self.graph(PartOrder([task.name for task in self.tasks], stored))
        if hints:
            transform = transform.with_resource_hints(**hints)
        read = ReadTasks(stored, type(self.tasks[0]), len(self.tasks)) if stored else beam.Create(self.tasks)
        tasks = pipeline | f"{self.name} tasks" >> read
        tasks | self.name >> transform

    @contextmanager
    def store_tasks(self) -> Iterator[str]:
        """Give a file that holds the tasks for `build` while the job runs, or "" if they are few."""
        if len(self.tasks) <= MOST_IN_GRAPH:
            yield ""
            return
        uri = files.join(self.folder, FOLDER, f"{uuid4().hex}.parquet")
        write_tasks(uri, self.tasks)
        try:
            yield uri
        finally:
            files.remove(uri)


def _deal(worker: Worker[Any, Any], _: PartOrder) -> beam.PTransform:
    """Give the graph of independent tasks, whatever their order."""
    return Deal(worker)
