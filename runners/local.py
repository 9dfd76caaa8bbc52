"""Runs jobs on this machine, by Beam's FnApiRunner: in worker processes, or in this process for a debugger.

The runner is named explicitly: Beam's default would first try to download a binary from the network.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import apache_beam as beam
import grpc  # type: ignore[import-untyped]  # has no stubs
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_provision_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]  # has no stubs

from tagmill.pipeline.job import Job
from tagmill.runners.fork_server import ForkServer, WorkerProcess

ATTEMPTS = 3
"""How often a job is tried whose worker processes die; what they committed before is not made again."""

DIED = "a worker process died without a word"
"""What the runner reports of such a job."""

_log = logging.getLogger(__name__)


@dataclass
class LocalEngine:
    """Runs each job to its end, with `workers` processes: what kills one does not end the driver.

    With 0 workers this process does the work itself, which is for debuggers and for tests.
    """

    workers: int
    options: PipelineOptions
    _server: ForkServer = field(default_factory=ForkServer, init=False, repr=False)

    def execute(self, job: Job) -> None:
        """Run one job. Raises RuntimeError with the worker's traceback if it fails.

        A job that loses a worker process, to a signal or for lack of memory, is run again.
        """
        threading.excepthook = _report_thread
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._run(job)
            except RuntimeError as error:
                if str(error).startswith("KeyboardInterrupt"):  # as Beam wraps it in this process
                    raise KeyboardInterrupt from error
                if DIED not in str(error):
                    raise
                _log.warning("%s: %s (attempt %d of %d)", job.name, DIED, attempt, ATTEMPTS)
            else:
                return
        raise RuntimeError(
            f"{job.name}: {DIED}, {ATTEMPTS} times; most often memory is short: use fewer --workers, or a "
            "smaller batch_size"
        )

    def close(self) -> None:
        """End the process that workers are forks of, at the latest when this process ends."""
        self._server.close()

    def _run(self, job: Job) -> None:
        workers = min(self.workers, len(job.tasks))
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
        return self._server.start(environment, job.stage.imports)


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
        threading.__excepthook__(failure)
