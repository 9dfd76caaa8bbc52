"""A job of a stage, and where jobs run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import apache_beam as beam

from tagmill.transforms.stage import Stage
from tagmill.transforms.worker import Deal, Worker


class Engine(Protocol):
    """Where jobs run."""

    def execute(self, job: "Job") -> None:
        """Run one job to its end. Raises whatever made it fail."""


@dataclass(frozen=True)
class Job:
    """The tasks of a stage and what does them.

    Every job is a Beam graph. Where its tasks are independent, the graph is one ParDo around `worker`, which
    an engine that is not Beam's may take instead; else `worker` is None. Workers note their failures in
    `folder`.
    """

    stage: Stage[Any]
    tasks: list[Any]
    folder: str
    graph: Callable[[], beam.PTransform]
    worker: Worker[Any, Any] | None = None

    @classmethod
    def of_worker(cls, tasks: list[Any], worker: Worker[Any, Any]) -> "Job":
        """Make a job of independent tasks."""
        return cls(worker.stage, tasks, worker.folder, partial(Deal, worker), worker)

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.stage.name

    @property
    def uses_model(self) -> bool:
        """Tell whether the job wants an accelerator."""
        return self.stage.uses_model

    def build(self, pipeline: beam.Pipeline, hints: Mapping[str, str] | None = None) -> None:
        """Wire the job; `hints` are Beam's resource hints for the stage's own step."""
        transform = self.graph()
        if hints:
            transform = transform.with_resource_hints(**hints)
        tasks = pipeline | f"{self.name} tasks" >> beam.Create(self.tasks)
        tasks | self.name >> transform
