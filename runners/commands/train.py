"""`tagmill train`: RAM, RAM++ or Tag2Text on the shards of runs; under torchrun on many devices."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tagmill.runners.commands import training_report
from tagmill.runners.commands.terminal import Terminal
from tagmill.tag_system.core import files
from tagmill.tag_system.core.config import read_config

if TYPE_CHECKING:
    from tagmill.models.training.out_folder import OutFolder
    from tagmill.models.training.pace import Report
    from tagmill.models.training.recipe import Recipe

STOPPED = 143
"""Exit code of a training that was asked to end and has saved: that of SIGTERM."""

TRIED = 2
"""Steps of a dry run."""

LEASE = "lease.json"
"""In an `out` that is in a store: who trains into it."""

EVERY = 10
"""Steps between two lines where there is no terminal."""


def train(
    config: Annotated[str, typer.Argument(help="YAML file that describes the training")],
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="override a key of the config: engine.clip_norm=1")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help=f"check everything, take {TRIED} steps, leave no checkpoint"),
    ] = False,
    profile: Annotated[
        tuple[int, str] | None,
        typer.Option(
            "--profile", metavar="STEPS DIR", help="trace so many steps by torch's profiler into a folder"
        ),
    ] = None,
) -> int:
    """Train a tagger on shards; on N devices: torchrun --nproc-per-node N -m tagmill.runners.cli train ..."""
    recipe = read_recipe(config, overrides or [])
    from tagmill.models.training.out_folder import OutFolder
    from tagmill.models.training.process import join_process_group
    from tagmill.models.training.profiling import ProfileConfig
    from tagmill.models.training.train import Trainer
    from tagmill.pipeline.study.tagged_picture import draw_pictured

    console = Terminal()
    traced = None if profile is None else ProfileConfig(*profile)  # before anything is read
    with ExitStack() as stack:
        process = stack.enter_context(join_process_group(recipe.engine.device))
        asked = stack.enter_context(_asked_to_stop())
        check = stack.enter_context(_alone(recipe)) if process.first else _nothing_to_check
        process.wait()
        folder = stack.enter_context(OutFolder(recipe, process, check=check))
        if process.first:
            _lay_decisions(recipe, folder, console, resume=resume)
        process.wait()
        shown = _Shown(console, each=dry_run) if process.first else None
        trainer = Trainer(
            recipe,
            process,
            folder=folder,
            resume=resume,
            stop=lambda: bool(asked),
            watch=shown or (lambda report: None),
            say=lambda line: _say(console, line) if process.first else None,
            draw=draw_pictured,
            profile=traced,
        )
        started = trainer.step
        with shown or _nothing():
            finished = trainer.try_out(TRIED) if dry_run else trainer.run()
        if dry_run:
            if process.first:
                _say(
                    console, f"the recipe works: {trainer.step - started} steps taken, and no checkpoint left"
                )
            return 0
        if process.first:
            _say(console, f"{'done' if finished else 'stopped'}: {folder.uri}/last is step {trainer.step}")
            if not finished:
                _say(console, "go on by the same command with --resume")
            elif recipe.validation is not None:
                training_report.show(console, folder, trainer.selection)
    return 0 if finished else STOPPED


def read_recipe(path: str, overrides: list[str]) -> "Recipe":
    """Read a config file. Raises ConfigError, in one line for each thing that is wrong."""
    from tagmill.models.training.recipe import Recipe

    return read_config(path, overrides, Recipe)


@contextmanager
def _alone(recipe: "Recipe") -> Iterator[Callable[[], None]]:
    """Keep other processes from training into `out`; gives what raises if one does all the same.

    On this machine that is a lock, in a store a lease, as the folder of a run has it.
    """
    from tagmill.models.training import checkpoint

    if files.is_local(recipe.out):
        with checkpoint.locked(recipe.folder):
            yield _nothing_to_check
        return
    from tagmill.pipeline.lease import Lease  # with Beam, which takes its time

    with Lease(files.join(recipe.out, LEASE)) as lease:
        yield lease.check


def _nothing_to_check() -> None:
    """Nobody can take a lock away."""


def _lay_decisions(recipe: "Recipe", folder: "OutFolder", console: Console, *, resume: bool) -> None:
    """Copy the decisions of another run, if the recipe names one; who goes on keeps those of the start."""
    from tagmill.pipeline.run_folder import RunFolder
    from tagmill.pipeline.study.overlay import lay_decisions

    if recipe.data.decisions is None or resume or folder.exists():
        return
    run = RunFolder(recipe.data.decisions)
    about = folder.lay_decisions(lambda place: lay_decisions(run, place))
    _say(
        console,
        f"decisions of {about['run']} (clean/{about['generation']}) on {about['examples']:,} examples "
        "go before those of the shards",
    )


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Note the first SIGTERM or SIGINT, for the loop to end at its next step; a second one ends at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {
        number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class _Shown:
    """Shows the reports: a bar on a terminal, else a line every so many steps, or of each."""

    def __init__(self, console: Console, *, each: bool = False) -> None:
        self._console, self._each = console, each
        columns = (BarColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console) if console.is_terminal else None
        self._task: Any = None

    def __enter__(self) -> "_Shown":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, report: "Report") -> None:
        line = (
            f"step {report.step}/{report.steps}  epoch {report.epoch + 1}  "
            f"loss {report.figures['total']:.4g}  "
            f"rate {report.figures['rate']:.2g}  {report.images_per_second:.1f} images/s  "
            f"{timedelta(seconds=round(report.seconds_left))} left"
        )
        if self._bar is None:
            if self._each or report.step % EVERY == 0 or report.step == report.steps:
                _say(self._console, line)
            return
        if self._task is None:
            self._task = self._bar.add_task(line, total=report.steps)
        self._bar.update(self._task, completed=report.step, total=report.steps, description=line)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
    sys.stdout.flush()
