"""A double of Google Cloud Dataflow: it takes jobs as Beam's client sends them, and runs them on Prism.

It holds a job against what the client's own library and messages say of one, and against nothing else: what
more the service looks at is not known here. It speaks REST under the paths of the library, and fails as it is
told by a POST to /double: {"create": [503, 429]} are its next answers to who submits a job, and so on.

    python dataflow_double.py --port 8080 --prism localhost:8073 --pool localhost:50051
"""

import argparse
import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.cloud import dataflow
from google.protobuf import json_format
from google.rpc.code_pb2 import Code

from dataflow_checks import Refused, checked
from prism_jobs import PrismJob
from tagmill.runners.worker_pool import ExternalPool
from tagmill.tag_system.core.errors import StoppedError

JOBS = re.compile(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs(?:/(?P<id>[^/]+))?(?P<more>/\w+)?$")

STATUS = {400: Code.INVALID_ARGUMENT, 403: Code.PERMISSION_DENIED, 404: Code.NOT_FOUND}
STATUS |= {429: Code.RESOURCE_EXHAUSTED, 503: Code.UNAVAILABLE}

State = dataflow.JobState
ENDED = (State.JOB_STATE_DONE, State.JOB_STATE_FAILED, State.JOB_STATE_CANCELLED)
IMPORTANCE = dataflow.JobMessageImportance


class DoubledJob:
    """One job: what was asked, and how it does on Prism."""

    def __init__(self, job_id: str, job: dataflow.Job, prism: PrismJob, pool: ExternalPool) -> None:
        self.job = job
        self.job.id = job_id
        self.job.current_state = State.JOB_STATE_PENDING
        self._prism = prism
        self._pool = pool
        self._own: list[str] = []
        threading.Thread(target=self._follow, daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self.job.current_state in ENDED

    def cancel(self) -> None:
        if not self.has_ended:
            self.job.current_state = State.JOB_STATE_CANCELLING
            self._prism.cancel()

    def messages(self) -> list[dict[str, Any]]:
        said = [*self._prism.errors, *self._own]
        return [
            {"id": str(number), "messageText": text, "messageImportance": int(IMPORTANCE.JOB_MESSAGE_ERROR)}
            for number, text in enumerate(said)
        ]

    def metrics(self) -> list[dict[str, Any]]:
        return [
            {"name": {"name": "ElementCount", "context": {"output_user_name": name}}, "scalar": count}
            for name, count in self._prism.elements().items()
        ]

    def _follow(self) -> None:
        """Take the job's state from Prism until it has ended; without workers it fails."""
        try:
            self._pool.expect()
            self._prism.run()
            while (state := self._prism.state()) not in ("DONE", "FAILED", "CANCELLED"):
                if self.job.current_state == State.JOB_STATE_PENDING:
                    self.job.current_state = State.JOB_STATE_RUNNING
                self._pool.look()
                time.sleep(0.2)
        except StoppedError as error:
            self._prism.cancel()
            self._own.append(f"Workflow failed. {error}")
            state = "FAILED"
        self._prism.close()
        self.job.current_state = State[f"JOB_STATE_{state}"]


class Double:
    """All jobs, and the answers that it has been told to give."""

    def __init__(self, prism: str, pool: str) -> None:
        self._prism = prism
        host, _, port = pool.rpartition(":")
        self._pool = lambda: ExternalPool(host, int(port))
        self._pool_address = pool
        self.jobs: list[DoubledJob] = []
        self.faults: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def create(self, body: bytes) -> dict[str, Any]:
        """Take a job; of a name that has one which runs, give that one, as the library says of `Job.name`."""
        job, pipeline, options = checked(body)
        with self._lock:
            for other in self.jobs:
                if other.job.name == job.name and not other.has_ended:
                    return answer(other.job)
            prism = PrismJob(self._prism, self._pool_address, job.name, pipeline, options)
            job_id = time.strftime(f"%Y-%m-%d_%H_%M_%S-{len(self.jobs):019d}")
            self.jobs.append(DoubledJob(job_id, job, prism, self._pool()))
            return answer(self.jobs[-1].job)

    def find(self, job_id: str) -> DoubledJob:
        for job in self.jobs:
            if job.job.id == job_id:
                return job
        raise Refused(404, f"({job_id}): Information about job {job_id} could not be found in our system.")

    def listed(self, query: dict[str, list[str]]) -> dict[str, Any]:
        name, active = query.get("name", [None])[0], query.get("filter", ["0"])[0] == "3"
        found = [job for job in self.jobs if name in (None, job.job.name)]
        return {"jobs": [answer(job.job) for job in found if not (active and job.has_ended)]}


def answer(job: dataflow.Job) -> dict[str, Any]:
    """Give a summary of a job as JSON."""
    names = ("id", "name", "current_state", "client_request_id")
    summary = dataflow.Job(**{name: getattr(job, name) for name in names})
    return json_format.MessageToDict(summary._pb, use_integers_for_enums=True)


class Handler(BaseHTTPRequestHandler):
    """Speaks REST for the double of its server."""

    double: Double

    def do_GET(self) -> None:
        self._answer("get", self._get)

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/double":
            self.double.faults |= json.loads(body)
            self._send(200, {})
        else:
            self._answer("create", lambda match, _: self.double.create(body))

    def do_PUT(self) -> None:
        asked = dataflow.Job.from_json(self._body())
        self._answer("update", lambda match, _: self._update(match["id"], asked))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet: what went wrong is in the answers."""

    def _get(self, match: re.Match[str], query: dict[str, list[str]]) -> dict[str, Any]:
        if match["id"] is None:
            return self.double.listed(query)
        found = self.double.find(match["id"])
        if match["more"] == "/messages":
            return {"jobMessages": found.messages()}
        if match["more"] == "/metrics":
            return {"metrics": found.metrics()}
        return answer(found.job)

    def _update(self, job_id: str, asked: dataflow.Job) -> dict[str, Any]:
        if asked.requested_state != State.JOB_STATE_CANCELLED:
            raise Refused(400, f"nobody can ask a job to be in {asked.requested_state}")
        found = self.double.find(job_id)
        found.cancel()
        return answer(found.job)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _answer(self, kind: str, give: Callable[..., dict[str, Any]]) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/double":
            shown = [json_format.MessageToDict(job.job._pb) for job in self.double.jobs]
            return self._send(200, {"jobs": shown})
        try:
            if faults := self.double.faults.get(kind):
                raise Refused(faults.pop(0), "the double was told to fail")
            match = JOBS.match(parts.path)
            if match is None:
                raise Refused(404, f"nothing is at {parts.path}")
            self._send(200, give(match, parse_qs(parts.query)))
        except Refused as error:
            status = Code.Name(STATUS[error.code])
            self._send(error.code, {"error": {"code": error.code, "message": str(error), "status": status}})

    def _send(self, code: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prism", required=True)
    parser.add_argument("--pool", required=True)
    arguments = parser.parse_args()
    Handler.double = Double(arguments.prism, arguments.pool)
    ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
