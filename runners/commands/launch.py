"""Launches runs: picks the engine, holds the lease, shows progress."""

from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import get_args

from rich.console import Console

from tagmill.pipeline.config import RunConfig, load_config
from tagmill.pipeline.dead_letters import parse_retry
from tagmill.pipeline.growth import Holdings
from tagmill.pipeline.job import Engine
from tagmill.pipeline.lease import Lease
from tagmill.pipeline.other_runs import is_same
from tagmill.pipeline.places import TRIAL
from tagmill.pipeline.run import Driver
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.study.near_report import near_counts
from tagmill.pipeline.study.report import write_report
from tagmill.runners.attempts import PersistentEngine
from tagmill.runners.beam_flags import parse_flags
from tagmill.runners.commands.console import ConsoleProgress, LogFormat
from tagmill.runners.commands.job_view import show_jobs
from tagmill.runners.commands.logs import log_json
from tagmill.runners.dataflow import DataflowEngine
from tagmill.runners.left_job import attend
from tagmill.runners.local import LocalEngine
from tagmill.runners.ray_flags import parse_ray_flags, parse_ray_hints
from tagmill.runners.remote import BEAM_RUNNERS, RemoteEngine, parse_hints, what_is_missing
from tagmill.runners.worker_pool import pool_of, take_pool_check
from tagmill.tag_system.core import extras, files
from tagmill.tag_system.core.errors import ConfigError

RUNNERS = ("ray", *BEAM_RUNNERS)
"""Runners on other machines."""


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for."""

    config: str
    overrides: list[str]
    runner: str
    workers: int
    hints: list[str]
    accept_changes: bool
    check_sources: bool
    log_format: LogFormat
    flags: list[str]
    until: str | None = None
    retry_dead: str | None = None
    limit: int | None = None


def log_format(value: str) -> LogFormat:
    """Check a log format. Raises ConfigError."""
    for known in get_args(LogFormat):
        if value == known:
            return known
    raise ConfigError(f"--log-format {value}: use one of {', '.join(get_args(LogFormat))}")


def run(request: RunRequest, console: Console, *, dry_run: bool = False) -> None:
    """Make a run whole, or show the jobs that would."""
    if request.log_format == "json":
        log_json()
    engine = _engine(request, console)
    config = load_config(request.config, request.overrides)
    if not isinstance(engine, LocalEngine) and files.is_local(config.run):
        # Workers may have been started in another folder.
        config = config.model_copy(update={"run": files.filesystem(config.run)[1]})
    config = limited(config, request.limit)
    driver = Driver(
        config,
        accept_changes=request.accept_changes,
        check_sources=request.check_sources,
        retry=parse_retry(RunFolder(config.run), request.retry_dead) if request.retry_dead else None,
        until=request.until,
    )
    missing = what_is_missing(request.runner.lower())
    if dry_run:
        show_jobs(console, driver, engine)
        if missing:
            console.print(missing, markup=False)
        return
    if missing:
        raise ConfigError(missing)
    if request.runner.lower() == "dataflow" and files.is_local(config.run):
        raise ConfigError(
            f"--runner dataflow: its workers cannot reach {config.run} on this machine; set `run` to a "
            "folder of an object store, such as gs://BUCKET/FOLDER"
        )
    if isinstance(engine, DataflowEngine):
        engine.check()
    with closing(engine) if isinstance(engine, PersistentEngine) else nullcontext():
        make(driver, engine, console, request.log_format)


def make(driver: Driver, engine: Engine, console: Console, log_format: LogFormat) -> None:
    """Make a run whole under its lease, show how far it is, and write its report."""
    with Lease(driver.run_folder.path("lease.json")) as lease:
        attend(driver.run_folder, engine)
        names = [stage.name for stage in driver.stages]
        before = Holdings.read(driver.run_folder)
        on_store = not files.is_local(driver.run_folder.root)
        with ConsoleProgress(console, log_format, names, on_store=on_store) as progress:
            driver.run(engine, progress, lease)
        write_report(driver.run_folder, driver.vocabulary)
        now = Holdings.of(driver.upstream.records)
        if now and now != before:
            now.write(driver.run_folder)
    if log_format != "json" and now and before and (grown := now.since(before)):
        console.print(grown, highlight=False)
    if log_format != "json" and (near := near_counts(driver.run_folder)):
        console.print(near.said(), highlight=False)


def limited(config: RunConfig, limit: int | None) -> RunConfig:
    """Give the config of a run of the first `limit` examples of each source, in a folder of its own."""
    if limit is None:
        return config
    ingest = config.ingest.model_copy(update={"limit": limit})
    run = f"{config.run.rstrip('/')}{TRIAL}{limit}"
    cluster = config.cluster
    if cluster and cluster.kept_run and is_same(cluster.kept_run, RunFolder(config.run)):
        cluster = cluster.model_copy(update={"from": run})
    return config.model_copy(update={"run": run, "ingest": ingest, "cluster": cluster})


def _engine(request: RunRequest, console: Console) -> Engine:
    name = request.runner.lower()
    if name == "daskrunner":
        raise ConfigError("--runner DaskRunner: it silently loses data in Beam 2.77; use local or portable")
    if name == "directrunner":
        console.print("DirectRunner first tries to download a binary; running on the local runner instead")
        name = "local"
    if name == "local":
        options = parse_flags(request.flags)
        if request.hints:
            raise ConfigError("--hint is for runners on other machines; leave it out for the local runner")
        return LocalEngine(request.workers, options)
    if name not in RUNNERS:
        raise ConfigError(f"--runner {request.runner}: use one of local, {', '.join(RUNNERS)}")
    if request.workers != 1:
        raise ConfigError(
            "--workers is for the local runner; give the other runners their own flags after --"
        )
    if name == "ray":
        return _ray_engine(request)
    if name == "dataflow":
        return DataflowEngine(name, parse_flags(request.flags), parse_hints(request.hints))
    flags, is_checked = take_pool_check(request.flags)
    options = parse_flags(flags)
    pool = pool_of(options) if is_checked else None
    return RemoteEngine(name, options, parse_hints(request.hints), pool)


def _ray_engine(request: RunRequest) -> Engine:
    flags, hints = parse_ray_flags(request.flags), parse_ray_hints(request.hints)
    if said := extras.missing(["ray"]):
        raise ConfigError(f"--runner ray: {said}")
    from tagmill.runners.ray_engine import RayEngine

    return RayEngine(flags, hints)
