"""Runs jobs on Google Cloud Dataflow, one after the other, by Beam's own client."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    TestOptions,
)
from apache_beam.portability.api import beam_runner_api_pb2

from tagmill.pipeline.job import Job
from tagmill.runners.left_job import JobNote
from tagmill.runners.remote import LONGEST_WORD, RemoteEngine, hints_of
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import ConfigError, StoppedError
from tagmill.tag_system.core.text import one_line

if TYPE_CHECKING:
    from tagmill.runners.dataflow_job import CloudPlace, DataflowJob

PREFIX = "tagmill"
"""What the names of jobs begin with, unless --job_name says otherwise."""

NEEDED = {"project": "PROJECT", "region": "REGION", "temp_location": "gs://BUCKET/FOLDER"}
"""Flags without which nothing can be submitted, and what they are."""

ONE_PROCESS, A_PROCESS_A_CORE = "no_use_multiple_sdk_containers", "use_multiple_sdk_containers"
"""Experiments of Beam that say how many processes of Python a worker has; the second is its default."""


@dataclass
class DataflowEngine(RemoteEngine):
    """Submits each job under a name of its own, and notes the name before, in the file `note`.

    Who is killed leaves the note, and the next driver finds the job by it. Interrupted, it cancels the job.
    """

    note: str = ""

    def check(self) -> None:
        """Raise ConfigError if flags are lacking that every job needs."""
        cloud = self.options.view_as(GoogleCloudOptions)
        lacking = [f"--{name}={what}" for name, what in NEEDED.items() if not getattr(cloud, name)]
        if lacking:
            raise ConfigError(f"--runner dataflow needs {' '.join(lacking)} after --")

    def wait_for(self, left: JobNote) -> bool:
        """Wait until a job of an earlier driver has ended, however it does; False if it ran elsewhere.

        Raises StoppedError if the service does not answer; interrupted, it cancels the job.
        """
        from tagmill.runners.dataflow_job import CALL_ERRORS, CloudPlace, DataflowJob, active_job

        place = self._place
        if left.service != self.runner or place != CloudPlace(left.project, left.region):
            return False
        try:
            client = self._client()
            job_id = active_job(client, place, left.job)
        except CALL_ERRORS as error:
            said = one_line(str(error))[:LONGEST_WORD]
            raise StoppedError(
                f"{left.stage}: Dataflow does not say whether the job {left.job} still runs: {said}"
            ) from error
        if job_id:
            job = DataflowJob(client, place, job_id, left.stage)
            with self._cancelled_if_interrupted(lambda: job):
                job.say(
                    "an earlier driver left this job, which still runs; waiting for it, Ctrl-C cancels it"
                )
                job.wait()
        return True

    def request(self, job: Job) -> tuple[dict[str, Any], int]:
        """Say what the service would be sent for a job, and its size in bytes of JSON; talks to nobody.

        Raises ConfigError for flags that are lacking or refused.
        """
        from apache_beam.runners.dataflow.internal import apiclient

        self.check()
        options = self._job_options(job)
        options.view_as(TestOptions).dry_run = True
        options.view_as(GoogleCloudOptions).no_auth = True
        pipeline = self._pipeline(job, options, "")
        built = pipeline.run().job  # type: ignore[attr-defined]  # of a dry run
        staging = built.google_cloud_options.staging_location
        built.proto.environment = apiclient.Environment(
            packages=[],
            options=built.options,
            environment_version=apiclient._FNAPI_ENVIRONMENT_MAJOR_VERSION,
            proto_pipeline_staged_url=f"{staging}/pipeline.pb",
            proto_pipeline=built.proto_pipeline,
        ).proto
        text = built.json()
        return _summary(json.loads(text), built.proto_pipeline, self.options), len(text)

    def _run(self, job: Job, pipeline: beam.Pipeline) -> tuple[str, str]:
        from tagmill.runners.dataflow_job import DataflowJob, active_job

        name = str(pipeline.options.view_as(GoogleCloudOptions).job_name)
        place = self._place
        if self.note:
            JobNote(self.runner, place.project, place.region, name, job.name).write(self.note)
        taken: list[DataflowJob] = []

        def find() -> DataflowJob | None:
            if taken:
                return taken[0]
            client = getattr(pipeline.runner, "dataflow_client", None)
            found = active_job(client, place, name) if client else None
            return DataflowJob(client, place, found, job.name) if found else None

        with self._cancelled_if_interrupted(find):
            result = self._handed_over(job, pipeline)
            client = pipeline.runner.dataflow_client  # type: ignore[attr-defined]  # once it has run
            taken.append(DataflowJob(client, place, result.job_id(), job.name))
            ended = taken[0].wait()
        self._forget()
        return ended

    def _handed_over(self, job: Job, pipeline: beam.Pipeline) -> Any:
        from tagmill.runners.dataflow_job import CALL_ERRORS

        try:
            return pipeline.run()
        except (*CALL_ERRORS, OSError) as error:
            # What was lost may be the answer of a service that took the job: the note stays.
            said = one_line(str(error))[:LONGEST_WORD]
            raise StoppedError(f"{job.name}: Dataflow does not take the job: {said}") from error

    @contextmanager
    def _cancelled_if_interrupted(self, find: "Callable[[], DataflowJob | None]") -> Iterator[None]:
        """Cancel the job that `find` gives, if this is interrupted; its note goes unless it may still run."""
        from tagmill.runners.dataflow_job import CALL_ERRORS

        try:
            yield
        except KeyboardInterrupt:
            with suppress(*CALL_ERRORS):
                job = find()
                if job is None or job.cancel():
                    self._forget()
            raise

    def _forget(self) -> None:
        if self.note:
            files.remove(self.note)

    @property
    def _place(self) -> "CloudPlace":
        from tagmill.runners.dataflow_job import CloudPlace

        cloud = self.options.view_as(GoogleCloudOptions)
        return CloudPlace(cloud.project, cloud.region)

    def _client(self) -> Any:
        from apache_beam.runners.dataflow.internal import apiclient

        return apiclient.DataflowApplicationClient(self.options)

    def _job_options(self, job: Job) -> PipelineOptions:
        options = super()._job_options(job)
        cloud = options.view_as(GoogleCloudOptions)
        stage = re.sub("[^a-z0-9]+", "-", job.name.lower()).strip("-")
        # Of one name the service runs one job at a time.
        cloud.job_name = f"{cloud.job_name or PREFIX}-{stage}-{uuid4().hex[:12]}"
        self._share_out(job, options.view_as(DebugOptions))
        return options

    def _share_out(self, job: Job, debug: DebugOptions) -> None:
        """Have each process do one task at a time, and on a worker with an accelerator have one process.

        By default there is one process for each core and twelve threads in it, and each of them would hold a
        part of its own and load the model. What the user's flags say counts.
        """
        if debug.number_of_worker_harness_threads is None:
            debug.number_of_worker_harness_threads = 1
        has_accelerator = job.uses_model and "accelerator" in self.hints
        if has_accelerator and not {ONE_PROCESS, A_PROCESS_A_CORE} & set(debug.experiments or []):
            debug.add_experiment(ONE_PROCESS)


def _summary(
    sent: dict[str, Any], pipeline: beam_runner_api_pb2.Pipeline, options: PipelineOptions
) -> dict[str, Any]:
    """Give of a request what a person decides; all else follows from the stage and from Beam."""
    (pool,) = sent["environment"]["workerPools"]
    images = pool.pop("sdkHarnessContainerImages", [])
    found = pipeline.components.environments
    left_out = ("packages", "taskrunnerSettings", "workerHarnessContainerImage")
    return {
        "name": sent["name"],
        "type": sent["type"],
        "environments": [
            {"image": image["containerImage"], "hints": hints_of(found[image["environmentId"]])}
            for image in images
        ],
        "workers": {name: value for name, value in pool.items() if name not in left_out},
        "experiments": sent["environment"].get("experiments", []),
        "options": options.get_all_options(drop_default=True),
    }
