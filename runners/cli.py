"""The command line: `tagmill demo`, `run`, `plan`, `status`, `inspect`, `predict`, `models` and the rest."""

import atexit
import errno
import os
import sys
from typing import Annotated, NoReturn

import typer

from tagmill.runners.commands import (
    evaluate,
    export_dataset,
    models,
    parse,
    predict,
    report,
    train,
    vocabulary,
    vocabulary_describe,
    vocabulary_embed,
)
from tagmill.runners.commands.logs import configure_logging
from tagmill.runners.commands.shelves import ShelvedGroup, renamed, root
from tagmill.runners.commands.terminal import OutputClosed, Terminal, complain, report_bug, safe
from tagmill.tag_system.core import extras, files, plugins
from tagmill.tag_system.core.errors import (
    ConfigError,
    DamageError,
    InputChangedError,
    StoppedError,
    TooManyDeadError,
)

EXIT_CODES: dict[type[Exception], int] = {
    StoppedError: 1,
    ConfigError: 2,
    TooManyDeadError: 3,
    InputChangedError: 4,
    DamageError: 5,
}

NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""Errors of the operating system that say that a path cannot be what it was named for."""

NO_TEMPORARY = "No usable temporary directory"
"""How Python says that it can write into none of the usual folders; libraries ask for one when imported."""

CRASHED, INTERRUPTED, CLOSED = 1, 130, 141

DIFFERENT = 1
"""What `diff` ends with when it found differences, as `diff` of files does."""

app = typer.Typer(
    cls=ShelvedGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Config = Annotated[str, typer.Argument(help="YAML file that describes the run")]
Run = Annotated[str, typer.Argument(help="the run's folder")]
Truth = Annotated[str, typer.Option(help="labelled images, Parquet or JSON lines: key, tags, kinds, absent")]
Override = Annotated[
    list[str] | None, typer.Option("--set", help="override a key of the config: clean.policy.rule=paper")
]
AcceptChanges = Annotated[
    bool, typer.Option(help="make the parts of changed source files again, and drop those of missing ones")
]
CheckSources = Annotated[
    bool, typer.Option(help="read sources and images again that look unchanged by size and time")
]

Until = Annotated[str | None, typer.Option(help="the last stage to be made; later ones need no model here")]

Limit = Annotated[
    int | None,
    typer.Option(min=1, help="read the first N examples of each source, into a run folder of its own"),
]

WITH_FLAGS = {"allow_extra_args": True}

app.callback()(root)
app.add_typer(models.app, name="models")
models.app.command("eval")(evaluate.evaluate)
models.app.command()(evaluate.calibrate)
app.command("eval", hidden=True)(renamed(evaluate.evaluate, "eval", "models eval"))
app.command("calibrate", hidden=True)(renamed(evaluate.calibrate, "calibrate", "models calibrate"))
app.add_typer(vocabulary.app, name="vocab")
vocabulary.app.command()(vocabulary_describe.describe)
vocabulary.app.command()(vocabulary_embed.embed)
app.command()(export_dataset.export)
app.command()(report.report)
app.command()(predict.predict)
app.command()(parse.parse)
app.command()(train.train)


@app.command()
def demo(
    photos: Annotated[
        str | None, typer.Argument(help="a folder of your own photographs in place of the drawn scenes")
    ] = None,
    run_folder: Annotated[
        str | None, typer.Option("--run", help="the run's folder; default: runs/demo, or runs/demo-photos")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="worker processes")] = 1,
) -> None:
    """Run the whole engine on embedded scenes with tiny models, offline, and say what came out."""
    from tagmill.runners.commands.demo import Demo, embedded, show_demo

    show_demo(Terminal(), Demo(photos, run_folder, workers), embedded())


@app.command()
def init(
    paths: Annotated[list[str], typer.Argument(help="folders, files or patterns with data")],
    output: Annotated[str, typer.Option(help="the config to write")] = "tagmill.yaml",
    labels: Annotated[
        bool, typer.Option("--labels", help="the data is labelled already: trust that, and parse nothing")
    ] = False,
) -> None:
    """Look at data, and write a config that reads it."""
    from tagmill.runners.commands.init import write_config

    write_config(Terminal(), paths, output, labels=labels)


@app.command(context_settings=WITH_FLAGS)
def run(
    context: typer.Context,
    config: Config,
    runner: Annotated[str, typer.Option(help="local, ray, portable or dataflow")] = "local",
    workers: Annotated[
        int, typer.Option(min=0, help="worker processes of the local runner; 0: work in this one")
    ] = 1,
    overrides: Override = None,
    hint: Annotated[
        list[str] | None,
        typer.Option(help="resource hint of model stages off this machine, name=value, or `none`"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the stages' jobs and run nothing")] = False,
    until: Until = None,
    limit: Limit = None,
    retry_dead: Annotated[
        str | None,
        typer.Option(help="STAGE or STAGE:REASON: make the parts again that have such dead letters"),
    ] = None,
    accept_changes: AcceptChanges = False,
    check_sources: CheckSources = False,
    log_format: Annotated[str, typer.Option(help="auto, plain or json")] = "auto",
) -> None:
    """Make everything of a run that is not made yet. Flags after `--` are the runner's."""
    from tagmill.runners.commands import launch

    launch.run(
        launch.RunRequest(
            config=config,
            overrides=overrides or [],
            runner=runner,
            workers=workers,
            hints=hint or [],
            accept_changes=accept_changes,
            check_sources=check_sources,
            until=until,
            limit=limit,
            retry_dead=retry_dead,
            log_format=launch.log_format(log_format),
            flags=context.args,
        ),
        Terminal(),
        dry_run=dry_run,
    )


@app.command()
def plan(
    config: Config,
    overrides: Override = None,
    until: Until = None,
    limit: Limit = None,
    examples: Annotated[
        int | None,
        typer.Option(min=1, help="show how the first N examples of each input would be read, and no plan"),
    ] = None,
    measure: Annotated[
        int | None, typer.Option(help="make N examples in a scratch folder, and say what the whole run takes")
    ] = None,
    total: Annotated[int | None, typer.Option(min=1, help="examples of the whole run, for --measure")] = None,
    workers: Annotated[int, typer.Option(min=1, help="worker processes of it, for --measure")] = 1,
    scratch: Annotated[
        str | None,
        typer.Option(help="folder or url that --measure works in; on a store, requests are counted"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print what --measure finds as JSON")] = False,
    accept_changes: AcceptChanges = False,
    check_sources: CheckSources = False,
) -> None:
    """Say what a run would make, and why; nothing is written."""
    from tagmill.pipeline.config import load_config
    from tagmill.pipeline.run import Driver
    from tagmill.runners.commands import inspection, launch
    from tagmill.runners.commands.preview_view import show_preview

    if measure is not None:
        from tagmill.runners.commands.forecast_view import ForecastRequest, show_forecast

        request = ForecastRequest(measure, total, workers, as_json, scratch)
        show_forecast(Terminal(), load_config(config, overrides or []), request)
        return
    driver = Driver(
        launch.limited(load_config(config, overrides or []), limit),
        accept_changes=accept_changes,
        check_sources=check_sources,
        until="ingest" if examples else until,
    )
    if examples:
        show_preview(Terminal(), driver, examples)
    else:
        inspection.show_plan(Terminal(), driver)


@app.command()
def status(
    run_folder: Run,
    as_json: Annotated[bool, typer.Option("--json", help="print it as one JSON object")] = False,
) -> None:
    """Say how far a run is: stages, parts, counts, dead letters, who drives it."""
    from tagmill.runners.commands import inspection

    inspection.show_status(Terminal(), run_folder, as_json=as_json)


@app.command()
def inspect(
    run_folder: Run,
    key: Annotated[str, typer.Argument(help="key of the example, such as mine/000123")],
    output: Annotated[str | None, typer.Option(help="draw the image with its boxes into this file")] = None,
    html: Annotated[
        str | None, typer.Option(help="write its page of `tagmill report` into this file")
    ] = None,
) -> None:
    """Say why each tag of one image was kept or dropped, and draw its boxes."""
    from tagmill.runners.commands import inspection
    from tagmill.runners.commands.example_view import show_example

    show_example(Terminal(), inspection.open_run(run_folder), key, output, html)


@app.command()
def sql(
    run_folder: Run,
    query: Annotated[str, typer.Argument(help="one SELECT of DuckDB, such as FROM clean WHERE tag = 'dog'")],
    rows: Annotated[int, typer.Option(min=1, help="rows that the table shows")] = 50,
    as_csv: Annotated[bool, typer.Option("--csv", help="print all rows as CSV")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print all rows as JSON, a line each")] = False,
) -> None:
    """Ask the tables of a run: its stages', the dead letters, the report's."""
    from tagmill.runners.commands.sql import SqlRequest, show_sql

    show_sql(Terminal(), SqlRequest(run_folder, query, rows, as_csv, as_json))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="a run, RUN@GENERATION of its stage clean, or a dataset's folder")],
    b: Annotated[str, typer.Argument(help="what it is compared with")],
    examples: Annotated[int, typer.Option(min=0, help="keys to show of each kind of difference")] = 0,
    truth: Annotated[
        str | None, typer.Option(help="labelled images, as for score: which side is right more often?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print all numbers as one JSON object")] = False,
    pages: Annotated[
        str | None, typer.Option(help="the folder to write what changed into, as pages with pictures")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="write no picture into the pages")] = False,
) -> None:
    """Compare the images and tags of two runs, generations or datasets, and say why they differ."""
    from tagmill.runners.commands.diff import DiffRequest, show_diff

    if not show_diff(Terminal(), DiffRequest(a, b, examples, truth, as_json, pages, private)):
        raise typer.Exit(DIFFERENT)


@app.command()
def score(
    run_folder: Run,
    truth: Truth,
    per_tag: Annotated[bool, typer.Option("--per-tag", help="list the tags with the most errors")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print all numbers as one JSON object")] = False,
) -> None:
    """Score a run's tags against a truth, by step, kind and tag."""
    from tagmill.runners.commands.score import show_score

    show_score(Terminal(), run_folder, truth, per_tag=per_tag, as_json=as_json)


@app.command()
def tune(
    run_folder: Run,
    truth: Truth,
    goal: Annotated[str, typer.Option(help="f1, or precision=P for the best recall at P")] = "f1",
    rule: Annotated[str | None, typer.Option(help="paper or adaptive; default: the run's")] = None,
    kind: Annotated[str | None, typer.Option(help="evaluate tags of this kind alone")] = None,
) -> None:
    """Choose clean.policy by half of a truth, and check it on the rest."""
    from tagmill.runners.commands.tune import TuningRequest, show_tuned

    show_tuned(Terminal(), TuningRequest(run_folder, truth, goal, rule, kind))


@app.command()
def verify(
    run_folder: Run,
    root: Annotated[
        str | None, typer.Option(help="the digest of the run's bytes that `status` printed before")
    ] = None,
    absent: Annotated[
        str | None,
        typer.Option(help="a file like that of an input's `exclude`: looks for nothing but what it names"),
    ] = None,
) -> None:
    """Check every part and shard of a run against its recorded digest."""
    from tagmill.runners.commands import inspection

    inspection.show_verify(Terminal(), run_folder, root, absent)


@app.command()
def gc(
    run_folder: Run,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, and keep it")] = False,
) -> None:
    """Remove what no current stage needs: old generations, superseded parts, leftovers."""
    from tagmill.runners.commands import inspection

    inspection.show_gc(Terminal(), run_folder, dry_run=dry_run)


def main() -> None:
    """Run the command line; what went wrong for a known reason is one line and an exit code."""
    configure_logging()
    _guard_exit()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # what cannot be downloaded is said in our own line
    try:
        code = app(standalone_mode=False) or 0
    except typer.TyperException as error:
        _say_usage(error.format_message())
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except tuple(EXIT_CODES) as error:
        complain(*map(str, error.args))
        code = EXIT_CODES[type(error)]
    except SystemExit as error:
        code = _ended(error)
    except Exception as error:  # noqa: BLE001  # Typer would print it as it is
        line = _known(error)
        if line is None:
            report_bug(type(error), error, error.__traceback__)
            code = CRASHED
        else:
            complain(line)
            code = EXIT_CODES[ConfigError]
    if code == INTERRUPTED:
        complain("interrupted; run the same command to go on")
    _leave(code)


def _known(error: Exception) -> str | None:
    """Say in a line what the machine refused or lacks; None for a bug."""
    if isinstance(error, ModuleNotFoundError):
        return extras.lacking(error)
    if not isinstance(error, OSError):
        return None
    if NO_TEMPORARY in str(error):
        return f"{error.strerror}; free some space there, or set TMPDIR to a folder that takes files"
    if error.errno in NO_PATH:
        return f"{str(error.filename)[:200]}: {error.strerror}"
    return files.refusal(error, "a folder of this machine")


def _ended(error: SystemExit) -> int:
    """Give the exit code of what ended the command; of nothing of ours it would be taken for a command's."""
    if isinstance(error, OutputClosed):
        return CLOSED
    complain(plugins.ended_by("sys.exit", error.code))
    return EXIT_CODES[ConfigError]


_end_process = os._exit


def _guard_exit() -> None:
    """Let nothing but `_leave` end this process by `os._exit`: a plug-in's 0 would say that all is made."""
    process = os.getpid()

    def ended(status: int) -> NoReturn:
        if os.getpid() == process:  # and not a fork of it
            complain(plugins.ended_by("os._exit", status))
            sys.stderr.flush()
            status = EXIT_CODES[ConfigError]
        _end_process(status)

    os._exit = ended


def _say_usage(message: str) -> None:
    """Say what is wrong with a command line; of one without a command the message is the help."""
    if message.startswith("Usage:"):
        sys.stderr.write(safe(message, keep="\n") + "\n")
    else:
        complain(message)


def _leave(code: int) -> NoReturn:
    """End the process at once: native threads of the libraries now and then abort an orderly shutdown, and
    would turn the exit code of work that is done and written into that of a crash.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    _end_process(code)


if __name__ == "__main__":
    main()
