"""Jobs of stages, and the engines that run them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import apache_beam as beam

from tagmill.transforms.stage import Stage
from tagmill.transforms.worker import Deal, Worker


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
        graph: Gives the Beam transform from tasks to results.
        worker: Does one task after the other, for engines without Beam; None if tasks depend on each other.
        is_trial: Whether it shows what the rest would cost in dead letters.
    """

    stage: Stage[Any]
    tasks: list[Any]
    folder: str
    graph: Callable[[], beam.PTransform]
    worker: Worker[Any, Any] | None = None
    is_trial: bool = False

    @classmethod
    def of_worker(cls, tasks: list[Any], worker: Worker[Any, Any], *, is_trial: bool = False) -> "Job":
        """Make a job of independent tasks."""
        return cls(worker.stage, tasks, worker.folder, partial(Deal, worker), worker, is_trial)

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

    def build(self, pipeline: beam.Pipeline, hints: Mapping[str, str] | None = None) -> None:
        """Add the job to a pipeline; `hints` are Beam's resource hints for the stage's own step."""
        transform = self.graph()
        if hints:
            transform = transform.with_resource_hints(**hints)
        tasks = pipeline | f"{self.name} tasks" >> beam.Create(self.tasks)
        tasks | self.name >> transform
