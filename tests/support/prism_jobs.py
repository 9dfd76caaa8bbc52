"""Hands pipelines to Prism by its job service, whatever they were made for."""

import threading
from contextlib import suppress
from typing import Any

import grpc
from apache_beam.coders import VarIntCoder
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_artifact_api_pb2_grpc as artifacts
from apache_beam.portability.api import beam_job_api_pb2 as jobs
from apache_beam.portability.api import beam_job_api_pb2_grpc as job_services
from apache_beam.portability.api import beam_runner_api_pb2 as api
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability import artifact_service
from apache_beam.runners.portability.portable_runner import JobServiceHandle

ANSWER_SECONDS = 30

ELEMENTS = "beam:metric:element_count:v1"


class PrismJob:
    """A pipeline as a job of Prism, whose steps run in the workers of a pool, wherever they were to run.

    Attributes:
        errors: What Prism said went wrong.
    """

    def __init__(
        self, prism: str, pool: str, name: str, pipeline: api.Pipeline, options: dict[str, Any]
    ) -> None:
        self._channel = grpc.insecure_channel(prism)
        self._service = job_services.JobServiceStub(self._channel)
        self._name, self._pipeline, self._options = name, pipeline, options
        self._id = ""
        self._is_cancelled = False
        self.errors: list[str] = []
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=pool)
        payload = api.ExternalPayload(endpoint=endpoint).SerializeToString()
        for environment in pipeline.components.environments.values():
            environment.urn, environment.payload = common_urns.environments.EXTERNAL.urn, payload
            # They say what was installed where the job was submitted; the pool has what it needs.
            del environment.dependencies[:]

    def run(self) -> None:
        """Begin the job."""
        options = JobServiceHandle.encode_pipeline_options(self._options)
        request = jobs.PrepareJobRequest(
            job_name=self._name, pipeline=self._pipeline, pipeline_options=options
        )
        prepared = self._service.Prepare(request, timeout=ANSWER_SECONDS)
        if place := prepared.artifact_staging_endpoint.url:
            with grpc.insecure_channel(place) as channel:
                retrieval = artifact_service.ArtifactRetrievalService(None)
                stub = artifacts.ArtifactStagingServiceStub(channel)
                artifact_service.offer_artifacts(stub, retrieval, prepared.staging_session_token)
        begun = jobs.RunJobRequest(preparation_id=prepared.preparation_id)
        self._id = self._service.Run(begun, timeout=ANSWER_SECONDS).job_id
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        if self._is_cancelled:
            self.cancel()

    def state(self) -> str:
        """Name the job's state."""
        request = jobs.GetJobStateRequest(job_id=self._id)
        return jobs.JobState.Enum.Name(self._service.GetState(request, timeout=ANSWER_SECONDS).state)

    def cancel(self) -> None:
        """Cancel the job, once it has begun."""
        self._is_cancelled = True
        if self._id:
            with suppress(grpc.RpcError):
                self._service.Cancel(jobs.CancelJobRequest(job_id=self._id), timeout=ANSWER_SECONDS)

    def elements(self) -> dict[str, int]:
        """Count the elements of each collection."""
        request = jobs.GetJobMetricsRequest(job_id=self._id)
        found = self._service.GetJobMetrics(request, timeout=ANSWER_SECONDS).metrics.committed
        return {
            info.labels["PCOLLECTION"]: VarIntCoder().decode(info.payload)
            for info in found
            if info.urn == ELEMENTS
        }

    def close(self) -> None:
        """Hear what was said to the end."""
        if self._id:
            self._listener.join(ANSWER_SECONDS)

    def _listen(self) -> None:
        with suppress(grpc.RpcError):  # the state says how the job ended
            for message in self._service.GetMessageStream(jobs.JobMessagesRequest(job_id=self._id)):
                said = message.message_response
                if said.importance == jobs.JobMessage.JOB_MESSAGE_ERROR:
                    self.errors.append(said.message_text)
