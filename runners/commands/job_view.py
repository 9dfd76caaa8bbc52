"""Shows the Beam jobs of a run without running them: steps, where they run, what they ask for."""

import json

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from tagmill.pipeline.job import Engine, Job
from tagmill.pipeline.run import Driver
from tagmill.runners.dataflow import DataflowEngine
from tagmill.runners.remote import RemoteEngine, hints_of, what_is_missing


def show_jobs(console: Console, driver: Driver, engine: Engine) -> None:
    """Print the jobs of every stage that can be planned now; later stages depend on what these make."""
    hints = dict(engine.hints) if isinstance(engine, RemoteEngine) else {}
    for plan in driver.plan():
        if plan.unknown:
            console.print(f"{plan.stage.name}: planned when its inputs are made", style="dim")
        elif not plan.tasks:
            console.print(f"{plan.stage.name}: nothing to do", style="dim")
        else:
            for job in driver.jobs(plan):
                console.print(f"{plan.stage.name}: {len(job.tasks)} tasks", style="bold")
                for step, asked in steps(job, hints):
                    needs = "".join(f"  [{name}={value}]" for name, value in asked.items())
                    console.print(f"  {step}{needs}", markup=False, highlight=False)
                if isinstance(engine, DataflowEngine) and not what_is_missing("dataflow"):
                    _show_request(console, engine, job)


def _show_request(console: Console, engine: DataflowEngine, job: Job) -> None:
    request, size = engine.request(job)
    for line in json.dumps(request, indent=2).splitlines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"a request of {size:,} bytes, of which Dataflow takes 10 MB", highlight=False)


def steps(job: Job, hints: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """List the steps of a job's portable form, which is the same on every runner, with their hints.

    Built offline: the pipeline is never run.
    """
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    job.build(pipeline, hints if job.uses_model else None)
    components = pipeline.to_runner_api().components
    found = []
    for step in components.transforms.values():
        if step.environment_id and not step.subtransforms:
            found.append((step.unique_name, hints_of(components.environments[step.environment_id])))
    return found
