"""Waits for a job that a portable runner has taken, asking its service now and again.

Beam's own client listens to one stream of states, which ends with `--job_server_timeout`, a minute by
default, however the job is doing.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc  # type: ignore[import-untyped]  # has no stubs
from apache_beam.portability.api import beam_job_api_pb2 as api

from tagmill.runners.worker_pool import ExternalPool
from tagmill.tag_system.core.errors import StoppedError

ANSWER_SECONDS = 10
"""What a service may take for one answer."""

LOST_SECONDS = 20
"""How long a service may be out of reach, as a network may be, before it counts as lost."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two questions, the first and the longest; each pause is half as long again as the last."""

PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""What gRPC says of a service that may be there again."""

ENDED = (api.JobState.DONE, api.JobState.FAILED, api.JobState.CANCELLED, api.JobState.DRAINED)


class PortableJob:
    """One job of a service.

    Args:
        result: What Beam gave for the job.
        endpoint: Where the service is, for messages.
        pool: The pool of its workers, if it is looked after.
    """

    def __init__(self, result: Any, endpoint: str, pool: ExternalPool | None = None) -> None:
        self._service = result._job_service
        self._id = result._job_id
        self._clean_up = result._cleanup
        self._endpoint = endpoint
        self._pool = pool
        self._errors: list[str] = []
        self._listener = threading.Thread(target=self._listen, name="listen to job", daemon=True)

    def wait(self) -> tuple[str, str]:
        """Wait until the job ends: the name of its state, and what the service said went wrong.

        The job is cancelled if this is interrupted. Raises StoppedError if the service or the pool is
        lost.
        """
        self._listener.start()
        with self._cancelled_if_left():
            state = next(state for state in self._states() if state in ENDED)
        self._listener.join(ANSWER_SECONDS)
        return api.JobState.Enum.Name(state), "\n".join(self._errors)

    def _states(self) -> Iterator[int]:
        """Give the job's state now and again, without end."""
        pause, answered = FIRST_PAUSE, time.monotonic()
        while True:
            try:
                asked = api.GetJobStateRequest(job_id=self._id)
                yield self._service.GetState(asked, timeout=ANSWER_SECONDS).state
                answered = time.monotonic()
            except grpc.RpcError as error:
                if error.code() not in PASSING or time.monotonic() - answered > LOST_SECONDS:
                    raise StoppedError(self._lost(error)) from error
            if self._pool:
                self._pool.look()
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _lost(self, error: Any) -> str:
        if error.code() in PASSING:
            what = f"nothing answers at {self._endpoint} any more"
        else:
            what = f"the service at {self._endpoint} does not know the job any more ({error.details()})"
        return f"{what}; see its log, start it and its workers again, and run the same command to go on"

    @contextmanager
    def _cancelled_if_left(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(grpc.RpcError):
                self._service.Cancel(api.CancelJobRequest(job_id=self._id), timeout=ANSWER_SECONDS)
            raise
        finally:
            self._clean_up()

    def _listen(self) -> None:
        with suppress(grpc.RpcError):  # the state says how the job ended
            for message in self._service.GetMessageStream(api.JobMessagesRequest(job_id=self._id)):
                said = message.message_response
                if said.importance == api.JobMessage.JOB_MESSAGE_ERROR:
                    self._errors.append(said.message_text)
