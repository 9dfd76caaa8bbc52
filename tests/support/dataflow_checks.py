"""What a double of Dataflow holds a job against: the client's library, and what Beam says of jobs."""

import hashlib
import re
from typing import Any

import fsspec
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2 as api
from google.cloud import dataflow
from google.protobuf import json_format

MOST_BYTES = 10 << 20
"""What a request may have: Beam's users are told that "the size of the serialized job must be < 10MB"."""

NAME = re.compile(r"[a-z]([-a-z0-9]{0,1022}[a-z0-9])?")
"""What the library says of `Job.name`."""

ACCELERATOR = re.compile(r"type:[-a-z0-9]+;count:[1-9][0-9]*(;install-nvidia-driver(:[\w.]+)?)?")
"""How Beam's documents write the hint of that name."""

HINTS = ("beam:resources:accelerator:v1", "beam:resources:min_ram_bytes:v1", "beam:resources:cpu_count:v1")


class Refused(Exception):
    """An answer other than 200; `code` is that of HTTP."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def checked(body: bytes) -> tuple[dataflow.Job, api.Pipeline, dict[str, Any]]:
    """Read a job as it was submitted: itself, its pipeline and its options. Raises Refused."""
    if len(body) > MOST_BYTES:
        raise Refused(400, f"Request payload size exceeds the limit: {MOST_BYTES} bytes.")
    try:
        job = dataflow.Job.from_json(body)  # of fields that the library knows
    except json_format.ParseError as error:
        raise Refused(400, f"the job is none: {error}") from error
    _hold(NAME.fullmatch(job.name), f"the job's name is {job.name}")
    _hold(job.type_ == dataflow.JobType.JOB_TYPE_BATCH, "the job is not a batch")
    _hold(job.client_request_id, "the job has no client_request_id")
    options = json_format.MessageToDict(job._pb.environment.sdk_pipeline_options)["options"]
    data = _staged(options["pipelineUrl"])
    _hold(hashlib.sha256(data).hexdigest() == options["pipelineProtoHash"], "the pipeline is another one")
    pipeline = api.Pipeline.FromString(data)
    (pool,) = job.environment.worker_pools
    for package in pool.packages:
        _staged(package.location.replace("storage.googleapis.com/", "gs://", 1))
    images = {image.environment_id: image.container_image for image in pool.sdk_harness_container_images}
    used = {step.environment_id for step in pipeline.components.transforms.values()} - {""}
    _hold(images.keys() == used, f"steps run in {sorted(used)}, images are those of {sorted(images)}")
    for name in used:
        _check_environment(pipeline.components.environments[name], images[name])
    return job, pipeline, options


def _check_environment(environment: api.Environment, image: str) -> None:
    _hold(environment.urn == common_urns.environments.DOCKER.urn, f"workers are {environment.urn}")
    named = api.DockerPayload.FromString(environment.payload).container_image
    _hold(named and named == image, f"the pipeline names the image {named}, the job {image}")
    for urn, value in environment.resource_hints.items():
        _hold(urn in HINTS, f"nobody knows the hint {urn}")
        form = ACCELERATOR if urn == HINTS[0] else re.compile("[0-9]+")
        _hold(form.fullmatch(value.decode()), f"the hint {urn} is {value!r}")
    for dependency in environment.dependencies:
        _hold(dependency.type_urn == common_urns.artifact_types.URL.urn, f"a {dependency.type_urn} is staged")
        staged = api.ArtifactUrlPayload.FromString(dependency.type_payload)
        digest = hashlib.sha256(_staged(staged.url)).hexdigest()
        _hold(digest == staged.sha256, f"{staged.url} is another file")


def _staged(url: str) -> bytes:
    """Read what was staged; a file that is not there refuses the job."""
    try:
        found: bytes = fsspec.filesystem("gs", token="anon").cat_file(url)
    except FileNotFoundError as error:
        raise Refused(400, f"{url} is not there") from error
    return found


def _hold(holds: object, otherwise: str) -> None:
    if not holds:
        raise Refused(400, otherwise)
