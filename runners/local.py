"""Runs jobs on this machine, by Beam's FnApiRunner: in worker processes, or in this process for a debugger.

The runner is named explicitly: Beam's default would first try to download a binary from the network.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apache_beam as beam
import grpc  # type: ignore[import-untyped]  # has no stubs
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_provision_api_pb2, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]  # has no stubs

from tagmill.pipeline.job import Job

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

    def _run(self, job: Job) -> None:
        workers = min(self.workers, len(job.tasks))
        values = self.options.get_all_options(drop_default=True)
        if workers:
            values = {"default_sdk_harness_log_level": "WARNING"} | values
            values |= {"direct_running_mode": "multi_processing", "direct_num_workers": workers}
        options = PipelineOptions.from_dictionary(values)
        pipeline = beam.Pipeline(runner=_runner(options), options=options)
        with _plain_labels():
            job.build(pipeline)
        pipeline.run().wait_until_finish()


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


def _runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """Make the runner, and have it hand the options on to its workers, which it does not by itself."""
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


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
            # A worker finds the modules that its driver finds, such as plug-ins beside a script, and no
            # others: it starts as `python -m`, which would put the working directory first.
            "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path),
            "PYTHONSAFEPATH": "1",
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(control),
            "PIPELINE_OPTIONS": json_format.MessageToJson(options),
            "WORKER_ID": self.worker_id,
        }
        self._process = subprocess.Popen([sys.executable, "-m", "tagmill.runners.worker"], env=environment)
        self.worker_thread = threading.Thread(target=self._watch, name="watch worker", daemon=True)
        self.worker_thread.start()

    def _watch(self) -> None:
        self._process.wait()
        while not self._is_closed.wait(0.1):
            asked = self.control_conn._futures_by_id
            for instruction in list(asked):
                if future := asked.pop(instruction, None):
                    answer = beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=DIED)
                    future.set(answer)

    def close(self) -> None:
        self._is_closed.set()
        if sys.exc_info()[0] is None and self._process.poll() is None:
            super().close()
            return
        # The job is lost: what a worker is at need not be waited for, since it only ever creates files.
        self._process.kill()
        self.control_conn.close()
        self.stop_worker()

    def stop_worker(self) -> None:
        self._process.wait()
        self.worker_thread.join()


def _report_thread(failure: threading.ExceptHookArgs) -> None:
    """Report what ends a thread, except for the line to a dead worker: its job reports that."""
    if not issubclass(failure.exc_type, grpc.RpcError):
        threading.__excepthook__(failure)
