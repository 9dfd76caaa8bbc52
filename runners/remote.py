"""Runs jobs elsewhere: on any of Beam's portable runners (Prism, Flink, Spark, a job service)."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import grpc  # type: ignore[import-untyped]  # has no stubs
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, SetupOptions
from apache_beam.portability.api import beam_job_api_pb2_grpc, beam_runner_api_pb2
from apache_beam.transforms.resources import parse_resource_hints

from tagmill.pipeline.job import Job
from tagmill.runners.portable_job import PortableJob
from tagmill.runners.worker_pool import ExternalPool
from tagmill.tag_system.core.errors import ConfigError, StoppedError
from tagmill.tag_system.core.text import one_line
from tagmill.transforms import failures

BEAM_RUNNERS = {"portable": "PortableRunner", "dataflow": "DataflowRunner"}

DEFAULT_HINTS = {"accelerator": "type:nvidia-l4;count:1;install-nvidia-driver"}
"""What a model stage asks of a worker, if the runner can give it; Dataflow and portable runners that know no
accelerators pass over the hint."""

TRACEBACK = "Traceback (most recent call last)"

LONGEST_WORD = 300
"""Characters that are shown of an error; the file has the rest."""


@dataclass
class RemoteEngine:
    """Submits each job and waits for its end.

    Attributes:
        runner: A name of `BEAM_RUNNERS`.
        options: Beam's.
        hints: What the stages that run a model ask of their workers.
        pool: The pool that starts the workers, if it is looked after.
    """

    runner: str
    options: PipelineOptions
    hints: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_HINTS))
    pool: ExternalPool | None = None

    def execute(self, job: Job) -> None:
        """Run one job; it is cancelled if this is interrupted.

        Raises StoppedError if it does not end well, ConfigError if nobody takes it.
        """
        with job.store_tasks() as stored:
            state, said = self._run(job, self.pipeline(job, stored))
        if state == "DONE":
            return
        if state != "FAILED":
            raise StoppedError(f"{job.name}: its job ended as {state}; run the same command to go on")
        where = ""
        with suppress(OSError):  # a full disk may be what went wrong
            where = f"; all that its runner said is in {failures.keep(job.folder, said)}"
        line = f"{job.name}: its job failed: {last_word(said)}{where}, more in the logs of its workers"
        raise StoppedError(line) from RuntimeError(said)

    def _run(self, job: Job, pipeline: beam.Pipeline) -> tuple[str, str]:
        """Run a job's pipeline to its end: its state, and what its runner said went wrong."""
        try:
            if self.pool:
                self.pool.expect()
            result = self._submit(pipeline)
            if isinstance(getattr(result, "_job_service", None), beam_job_api_pb2_grpc.JobServiceStub):
                return PortableJob(result, self._endpoint, self.pool).wait()
        except StoppedError as error:
            raise StoppedError(f"{job.name}: {error}") from error
        try:  # a service in this process
            return result.wait_until_finish(), ""
        except KeyboardInterrupt:
            result.cancel()
            raise
        except RuntimeError as error:
            return "FAILED", str(error)

    def _submit(self, pipeline: beam.Pipeline) -> Any:
        try:
            return pipeline.run()
        except grpc.FutureTimeoutError as error:
            waited = self.options.view_as(PortableOptions).job_server_timeout
            raise ConfigError(
                f"nothing that takes jobs answers at {self._endpoint} within {waited} s: start it, or set "
                "--job_endpoint=HOST:PORT after --"
            ) from error
        except grpc.RpcError as error:
            said = f"{error.code().name}: {one_line(error.details() or '')}"
            raise StoppedError(f"{self._endpoint} does not take the job: {said}; see its log") from error
        except NotImplementedError as error:
            raise ConfigError(f"--runner {self.runner} needs --job_endpoint=HOST:PORT after --") from error

    @property
    def _endpoint(self) -> str:
        return str(self.options.view_as(PortableOptions).job_endpoint)

    def pipeline(self, job: Job, stored: str = "") -> beam.Pipeline:
        """Build a job's pipeline, which talks to nobody before it is run; for `stored` see `Job.build`."""
        return self._pipeline(job, self._job_options(job), stored)

    def _job_options(self, job: Job) -> PipelineOptions:
        """Give the options of one job: Beam changes those that it is given."""
        options = PipelineOptions.from_dictionary(self.options.get_all_options(drop_default=True))
        # tagmill is installed on the workers: nothing of this process's main module has to travel.
        options.view_as(SetupOptions).save_main_session = False
        return options

    def _pipeline(self, job: Job, options: PipelineOptions, stored: str) -> beam.Pipeline:
        try:
            pipeline = beam.Pipeline(runner=BEAM_RUNNERS[self.runner], options=options)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"--runner {self.runner}: {' '.join(str(error).split())}") from error
        job.build(pipeline, self.hints if job.uses_model else None, stored)
        return pipeline


def last_word(said: str) -> str:
    """Give the line that counts of what a runner said: of tracebacks the last error, else the first line."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    starts = [place for place, line in enumerate(lines) if line.lstrip().startswith(TRACEBACK)]
    if starts:
        lines = [line for line in lines[starts[-1] + 1 :] if not line[0].isspace()] or lines
    return lines[0].removesuffix(".")[:LONGEST_WORD] if lines else "its runner does not say why"


def hints_of(environment: beam_runner_api_pb2.Environment) -> dict[str, str]:
    """Give the resource hints of the steps of an environment, by their short names."""
    return {urn.split(":")[-2]: value.decode() for urn, value in environment.resource_hints.items()}


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
