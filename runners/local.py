"""Runs jobs on this machine, by Beam's FnApiRunner: in this process, or in worker processes.

The runner is named explicitly: Beam's default would first try to download a binary from the network.
"""

import os
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from tagmill.pipeline.run import Job


@dataclass
class LocalEngine:
    """Runs each job to its end, with `workers` processes; one worker is this process itself."""

    workers: int
    options: PipelineOptions

    def execute(self, job: Job) -> None:
        """Run one job. Raises RuntimeError with the worker's traceback if it fails."""
        # Workers start as `python -m`: without this, a `models` folder in the working directory would win.
        os.environ["PYTHONSAFEPATH"] = "1"
        workers = min(self.workers, len(job.tasks))
        values = self.options.get_all_options(drop_default=True)
        if workers > 1:
            values |= {"direct_running_mode": "multi_processing", "direct_num_workers": workers}
        options = PipelineOptions.from_dictionary(values)
        pipeline = beam.Pipeline(runner=_runner(options), options=options)
        job.build(pipeline)
        pipeline.run().wait_until_finish()


def _runner(options: PipelineOptions) -> fn_runner.FnApiRunner:
    """Make the runner, and have it hand the options on to its workers, which it does not by itself."""
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))
