"""Runs jobs on this machine: in worker processes by Beam's FnApiRunner, or in this process for a debugger.

The runner is named explicitly: Beam's default would first try to download a binary from the network.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import apache_beam as beam
import grpc  # type: ignore[import-untyped]  # has no stubs
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_provision_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]  # has no stubs

from tagmill.pipeline.job import Job
from tagmill.runners.attempts import Death, PersistentEngine
from tagmill.runners.commands.terminal import report_thread
from tagmill.runners.fork_server import ForkServer, WorkerProcess
from tagmill.tag_system.core.redaction import redacted
from tagmill.transforms import failures
from tagmill.transforms.worker import Worker

DIED = "a worker process died without a word"
"""What the runner reports of such a job."""


@dataclass
class LocalEngine(PersistentEngine):
    """Runs each job to its end, with `workers` processes: what kills one does not end the driver.

    With 0 workers this process does the work itself, which is for debuggers and for tests: independent tasks
    one after the other, without Beam, so that a bug is raised as it is.
    """

    relief = "use fewer --workers, or a smaller batch_size"

    workers: int
    options: PipelineOptions
    _server: ForkServer = field(default_factory=ForkServer, init=False, repr=False)
    _started: list[WorkerProcess] = field(default_factory=list, init=False, repr=False)

    def execute(self, job: Job) -> None:
        """Run one job, as all of these engines do; the lines to workers that died are no news.

        With 0 workers, what fails is raised as it is.
        """
        threading.excepthook = _report_thread
        super().execute(job)

    def _attempt(self, job: Job) -> list[Death]:
        """Run a job; gives the processes that died, none if all is done. Raises RuntimeError."""
        failures.forget(job.folder)
        self._started = []
        try:
            self._run(job)
        except RuntimeError as error:
            if str(error).startswith("KeyboardInterrupt"):  # as Beam wraps it in this process
                raise KeyboardInterrupt from error
            if DIED not in str(error) or failures.find(job.folder):
                error.args = (redacted(str(error)),)  # a plug-in may have quoted its token
                raise
            at = failures.left_at(job.folder)
            dead = [worker for worker in self._started if worker.has_died]
            return [Death(at.get(worker.pid), _how(job, worker)) for worker in dead]
        return []

    def close(self) -> None:
        """End the process that workers are forks of, at the latest when this process ends."""
        self._server.close()

    def _run(self, job: Job) -> None:
        workers = min(self.workers, len(job.tasks))
        if not workers and job.worker is not None:
            _work_here(job.worker, job.tasks)
            return
        values = self.options.get_all_options(drop_default=True)
        if workers:
            values = {"default_sdk_harness_log_level": "WARNING"} | values
            values |= {"direct_running_mode": "multi_processing", "direct_num_workers": workers}
        options = PipelineOptions.from_dictionary(values)
        runner = fn_runner.FnApiRunner(provision_info=_Provision(options, partial(self._start, job)))
        pipeline = beam.Pipeline(runner=runner, options=options)
        with _plain_labels():
            job.build(pipeline)
        pipeline.run().wait_until_finish()

    def _start(self, job: Job, environment: Mapping[str, str]) -> WorkerProcess:
        worker = self._server.start(environment, job.stage.imports, job.stage.imports_alone)
        self._started.append(worker)
        return worker


def _work_here(worker: Worker[Any, Any], tasks: Iterable[Any]) -> None:
    """Do independent tasks in this process, by a copy of the worker: what it loads is gone with it."""
    own = pickler.loads(pickler.dumps(worker))
    own.setup()
    for task in tasks:
        own.do(task)


def _how(job: Job, worker: WorkerProcess) -> str:
    if worker.code == -signal.SIGALRM:
        return f"was ended, since a batch took longer than {job.name}.timeout, {job.stage.config.timeout} s"
    return worker.how()


@contextmanager
def _plain_labels() -> Iterator[None]:
    """Let transforms keep their names in a notebook.

    Beam would put the number of the cell before them, which is useless here, and needs pandas for that.
    """
    altering = beam.pipeline.alter_label_if_ipython
    beam.pipeline.alter_label_if_ipython = lambda transform, pvalueish: None
    try:
        yield
    finally:
        beam.pipeline.alter_label_if_ipython = altering


@dataclass
class _Provision(fn_runner.ExtendedProvisionInfo):
    """What a runner hands to its workers: Beam's options, and who starts them."""

    options: PipelineOptions
    start: Callable[[Mapping[str, str]], WorkerProcess]

    def __post_init__(self) -> None:
        encoded = JobServiceHandle.encode_pipeline_options(self.options.get_all_options())
        super().__init__(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))


@worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class _WatchedWorkerHandler(worker_handlers.SubprocessSdkWorkerHandler):
    """Starts a worker process, and fails what it was asked for once it has ended.

    Takes the place of Beam's own handler, which would wait for a dead worker's answers for ever.
    """

    def start_worker(self) -> None:
        self._is_closed = threading.Event()
        control = endpoints_pb2.ApiServiceDescriptor(url=self.control_address)
        options = self.provision_info.provision_info.pipeline_options
        environment = {
            **os.environ,
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        if not isinstance(self.provision_info, _Provision):
            raise TypeError("the runner of a worker is one of LocalEngine")
        self._process = self.provision_info.start(environment)
        self.worker_thread = threading.Thread(target=self._watch, name="watch worker", daemon=True)
        self.worker_thread.start()

    def _watch(self) -> None:
        self._process.ended.wait()
        while not self._is_closed.wait(0.1):
            asked = self.control_conn._futures_by_id
            for instruction in list(asked):
                if future := asked.pop(instruction, None):
                    answer = beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=DIED)
                    future.set(answer)

    def close(self) -> None:
        self._is_closed.set()
        # Either all is done, or the job is lost: what a worker is at need not be waited for, since it only
        # ever creates files.
        with suppress(grpc.RpcError):  # how the line to a dead worker ended
            self.data_conn.close()
        self._process.kill()
        self.control_conn.close()
        self.stop_worker()

    def stop_worker(self) -> None:
        self._process.ended.wait()
        self.worker_thread.join()


def _report_thread(failure: threading.ExceptHookArgs) -> None:
    """Report what ends a thread, except for the line to a dead worker: its job reports that."""
    if not issubclass(failure.exc_type, grpc.RpcError):
        report_thread(failure)
