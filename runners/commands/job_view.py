"""Shows the Beam jobs of a run without running them: steps, where they run, what they ask for."""

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from tagmill.pipeline.job import Engine, Job
from tagmill.pipeline.run import Driver
from tagmill.runners.remote import RemoteEngine


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
            resources = components.environments[step.environment_id].resource_hints
            asked = {urn.split(":")[-2]: value.decode() for urn, value in resources.items()}
            found.append((step.unique_name, asked))
    return found
