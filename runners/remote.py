"""Runs jobs elsewhere: on Dataflow, or on any of Beam's portable runners (Flink, Spark, a job service)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.transforms.resources import parse_resource_hints

from tagmill.pipeline.job import Job
from tagmill.tag_system.core.errors import ConfigError

BEAM_RUNNERS = {"portable": "PortableRunner", "dataflow": "DataflowRunner"}

DEFAULT_HINTS = {"accelerator": "type:nvidia-l4;count:1;install-nvidia-driver"}
"""What a model stage asks of a worker, if the runner can give it; Dataflow and portable runners that know no
accelerators pass over the hint."""


@dataclass
class RemoteEngine:
    """Submits each job and waits for its end. `hints` go to the stages that run a model."""

    runner: str
    options: PipelineOptions
    hints: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_HINTS))

    def execute(self, job: Job) -> None:
        """Run one job. Raises RuntimeError if it does not end well."""
        with job.store_tasks() as stored:
            result = self.pipeline(job, stored).run()
            state = result.wait_until_finish()
        if state != "DONE":
            raise RuntimeError(f"the job of stage {job.name} ended as {state}; see the runner's own log")

    def pipeline(self, job: Job, stored: str = "") -> beam.Pipeline:
        """Build a job's pipeline, which talks to nobody before it is run; for `stored` see `Job.build`."""
        options = PipelineOptions.from_dictionary(self.options.get_all_options(drop_default=True))
        # tagmill is installed on the workers: nothing of this process's main module has to travel.
        options.view_as(SetupOptions).save_main_session = False
        try:
            pipeline = beam.Pipeline(runner=BEAM_RUNNERS[self.runner], options=options)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"--runner {self.runner}: {' '.join(str(error).split())}") from error
        job.build(pipeline, self.hints if job.uses_model else None, stored)
        return pipeline


def what_is_missing(runner: str) -> str | None:
    """Say what has to be installed before jobs can be handed to a runner; building them needs nothing."""
    if runner == "dataflow":
        try:
            from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401  # only whether it is there
        except ImportError:
            return "--runner dataflow needs Beam's client of Google Cloud: pip install 'tagmill[gcp]'"
    return None


def parse_hints(values: list[str]) -> dict[str, str]:
    """Read resource hints written as name=value; none given are the defaults, `none` is none at all."""
    if not values:
        return dict(DEFAULT_HINTS)
    if values == ["none"]:
        return {}
    pairs = [value.partition("=") for value in values]
    for name, equals, _ in pairs:
        if not equals:
            raise ConfigError(f"--hint {name}: write it as name=value, such as min_ram=16GB")
    hints = {name: value for name, _, value in pairs}
    try:
        parse_resource_hints(hints)
    except ValueError as error:
        raise ConfigError(f"--hint: {error}") from error
    return hints
