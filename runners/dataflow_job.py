"""Waits for a job of Google Cloud Dataflow, and cancels it.

Beam's own waiting ends in a traceback if the service is out of reach for long, and logs what it hears.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import google.cloud.dataflow as dataflow
import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from tagmill.runners.remote import LONGEST_WORD
from tagmill.tag_system.core.errors import StoppedError
from tagmill.tag_system.core.text import one_line

ANSWER_SECONDS = 30
"""What the service may take for one answer."""

LOST_SECONDS = 600
"""How long the service may be out of reach before the driver gives up; the job goes on without it."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two questions; each pause is half as long again as the last. Beam's own client takes 5."""

MESSAGE_SECONDS = 50
"""How long after its end a failed job may take to say why: as long as Beam's own client waits for that."""

CANCEL_TRIES = 3

RETRIED = "work item was attempted"
"""Words of the message that sums up a failure, and hides the traceback of an earlier one."""

CALL_ERRORS = (GoogleAPICallError, GoogleAuthError, requests.RequestException)
"""What a call of the service raises, by gRPC or by REST."""

_log = logging.getLogger(__name__)

_State = dataflow.JobState

ENDED = [
    getattr(_State, f"JOB_STATE_{name}") for name in ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")
]


@dataclass(frozen=True)
class CloudPlace:
    """Where jobs are: a project and a region of it."""

    project: str
    region: str

    def page(self, job_id: str) -> str:
        """Give the address of a job's page in Google's console."""
        return f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{job_id}?project={self.project}"

    @property
    def _request(self) -> dict[str, str]:
        return {"project_id": self.project, "location": self.region}


@dataclass
class DataflowJob:
    """One job of the service.

    Attributes:
        client: Beam's client of the service.
        place: Where the job is.
        id: Its id.
        stage: The stage that it works for, for messages.
    """

    client: Any
    place: CloudPlace
    id: str
    stage: str
    _errors: list[str] = field(default_factory=list)
    _heard: set[str] = field(default_factory=set)

    def wait(self) -> tuple[str, str]:
        """Wait until the job ends: the name of its state, and what the service said went wrong.

        Raises StoppedError if the service is lost.
        """
        state = next(state for state in self._states() if state in ENDED)
        if state == _State.JOB_STATE_FAILED:
            self._hear_why()
        return state.name.removeprefix("JOB_STATE_"), self._said()

    def say(self, what: str) -> None:
        """Warn of something about the job, and where to look at it."""
        _log.warning("%s: %s (%s)", self.stage, what, self.place.page(self.id))

    def cancel(self) -> bool:
        """Have the service cancel the job; False, which is said, if it does not: a job costs."""
        asked = dataflow.Job(requested_state=_State.JOB_STATE_CANCELLED)
        request = dataflow.UpdateJobRequest(job_id=self.id, job=asked, **self.place._request)
        for left in reversed(range(CANCEL_TRIES)):
            try:
                self.client._jobs_client.update_job(request=request, timeout=ANSWER_SECONDS)
            except CALL_ERRORS as error:
                if not left:
                    self.say(f"its job could not be cancelled: {one_line(str(error))[:LONGEST_WORD]}")
                time.sleep(1)
            else:
                return True
        return False

    def _states(self) -> Iterator[Any]:
        """Give the job's state now and again, without end."""
        pause, answered = FIRST_PAUSE, time.monotonic()
        request = dataflow.GetJobRequest(job_id=self.id, **self.place._request)
        while True:
            try:
                self._listen()
                yield self.client._jobs_client.get_job(request, timeout=ANSWER_SECONDS).current_state
                answered = time.monotonic()
            except CALL_ERRORS as error:
                if not is_passing(error) or time.monotonic() - answered > LOST_SECONDS:
                    raise StoppedError(self._lost(error)) from error
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _listen(self) -> None:
        """Hear what the service says of the job: errors are kept, warnings logged, as of quota."""
        request = dataflow.ListJobMessagesRequest(
            job_id=self.id,
            minimum_importance=dataflow.JobMessageImportance.JOB_MESSAGE_WARNING,
            **self.place._request,
        )
        found = self.client._messages_client.list_job_messages(request=request, timeout=ANSWER_SECONDS)
        for message in found:
            name = message.id or f"{message.time} {message.message_text}"
            if name in self._heard:
                continue
            self._heard.add(name)
            if message.message_importance == dataflow.JobMessageImportance.JOB_MESSAGE_ERROR:
                self._errors.append(message.message_text)
            else:
                said = one_line(message.message_text)[:LONGEST_WORD]
                _log.warning("%s: Dataflow says: %s", self.stage, said)

    def _hear_why(self) -> None:
        """Listen until there is an error, which may come some time after the job's end."""
        end = time.monotonic() + MESSAGE_SECONDS
        while True:
            with suppress(*CALL_ERRORS):  # that it failed is known
                self._listen()
            if self._errors or time.monotonic() > end:
                return
            time.sleep(1)

    def _said(self) -> str:
        told = [text for text in self._errors if RETRIED not in text]
        return "\n".join(told or self._errors)

    def _lost(self, error: Exception) -> str:
        said = one_line(str(error))[:LONGEST_WORD]
        return (
            f"{self.stage}: Dataflow does not say any more how job {self.id} does ({said}); it may still "
            f"run, see {self.place.page(self.id)}, and the same command waits for it"
        )


def is_passing(error: Exception) -> bool:
    """Tell whether what a call raised may be over soon; the service denies new jobs now and then."""
    if isinstance(error, GoogleAPICallError):
        return error.code is None or error.code >= 500 or error.code in (404, 408, 429)
    return isinstance(error, requests.ConnectionError | requests.Timeout)


def active_job(client: Any, place: CloudPlace, name: str) -> str | None:
    """Find the id of the job of a name that has not ended; None if there is none."""
    request = dataflow.ListJobsRequest(
        filter=dataflow.ListJobsRequest.Filter.ACTIVE, name=name, **place._request
    )
    found = client._jobs_client.list_jobs(request, timeout=ANSWER_SECONDS)
    return next((job.id for job in found if job.name == name and job.current_state not in ENDED), None)
