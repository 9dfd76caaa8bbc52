"""A Beam job of a stage, and where such jobs run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam

from tagmill.pipeline.plan import StagePlan


class Engine(Protocol):
    """Where Beam jobs run."""

    def execute(self, job: "Job") -> None:
        """Run one job to its end. Raises whatever made it fail."""


@dataclass(frozen=True)
class Job:
    """The Beam job of a stage: its tasks and how to make the transform that takes them."""

    plan: StagePlan
    tasks: list[Any]
    make_transform: Callable[[], beam.PTransform]

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.plan.stage.name

    @property
    def uses_model(self) -> bool:
        """Tell whether the job wants an accelerator."""
        return self.plan.stage.uses_model

    def build(self, pipeline: beam.Pipeline, hints: Mapping[str, str] | None = None) -> None:
        """Wire the job; `hints` are Beam's resource hints for the stage's own step."""
        transform = self.make_transform()
        if hints:
            transform = transform.with_resource_hints(**hints)
        tasks = pipeline | f"{self.name} tasks" >> beam.Create(self.tasks)
        tasks | self.name >> transform
