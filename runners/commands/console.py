"""Shows a run's progress: live lines in a terminal, plain lines or JSON lines elsewhere."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tagmill.pipeline.progress import Extent
from tagmill.tag_system.core import files

LogFormat = Literal["auto", "plain", "json"]

POLL_SECONDS = 0.5
"""How often finished parts are counted on this machine."""

PAGE_SECONDS = 1.0
"""On a store, where each page of names is a request, for how many seconds a page of them is enough."""

FILES_EACH = 2
"""Files that may lie in a folder for each thing that is counted, such as a tar and its index."""

PLAIN_SECONDS = 10.0
FRAMES_A_SECOND = 10

COLUMNS: tuple[tuple[int, Literal["left", "right"]], ...] = (
    (12, "left"),
    (8, "left"),
    (16, "right"),
    (8, "right"),
    (14, "right"),
    (6, "right"),
)
"""Least width of what is shown of a stage, so that nothing jumps as numbers grow: its name, bar, count, pace,
time and dead letters."""

ROOMY = 100
"""Width of a terminal from which on columns stand two apart; at 80 the largest numbers need the room."""


class _StageLine:
    """What is shown of one stage."""

    def __init__(self, name: str, extent: Extent) -> None:
        self.name = name
        self.unit = extent.unit
        self.before = self.done = extent.done
        self.total = extent.total
        self.began = time.monotonic()
        self.seconds = 0.0
        self.examples: int | None = None
        self.dead = 0

    @property
    def finished(self) -> bool:
        """Tell whether the stage is whole."""
        return self.examples is not None

    @property
    def made(self) -> bool:
        """Tell whether this run makes anything of it."""
        return self.total > self.before

    def rate(self) -> float:
        """Units made a second, by this run."""
        return (self.done - self.before) / max(self.elapsed(), 1e-9)

    def elapsed(self) -> float:
        """Seconds since the stage began, up to its end."""
        return self.seconds or time.monotonic() - self.began

    def remaining(self) -> float | None:
        """Seconds that are left at this rate; None before anything was made."""
        return (self.total - self.done) / self.rate() if self.done > self.before else None


class _ProgressView(Protocol):
    def update(self, stages: list[_StageLine], *, event: str) -> None: ...

    def close(self, *, failed: bool) -> None: ...


class ConsoleProgress:
    """A `Progress` for people and for log collectors; open it as a context.

    `names` are the stages to come, which a terminal shows from the start; `on_store` tells that counting
    costs requests.
    """

    def __init__(
        self,
        console: Console,
        log_format: LogFormat = "auto",
        names: Sequence[str] = (),
        *,
        on_store: bool = False,
    ) -> None:
        self._on_store = on_store
        self._stages: list[_StageLine] = []
        if log_format == "json":
            self._view: _ProgressView = _JsonView()
        elif log_format == "auto" and console.is_terminal:
            self._view = _LiveView(console, names)
        else:
            self._view = _LineView(console)

    def __enter__(self) -> "ConsoleProgress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._view.close(failed=kind is not None)

    def start(self, stage: str, extent: Extent) -> None:
        """Begin a stage's line."""
        self._stages.append(_StageLine(stage, extent))
        self._view.update(self._stages, event="start")

    @contextmanager
    def watch(self, stage: str, count: Callable[[], int]) -> Iterator[None]:
        """Count on while a job runs."""
        stop = threading.Event()
        seconds = seconds_between_counts(self._stages[-1].total, on_store=self._on_store)

        def poll() -> None:
            while not stop.wait(seconds):
                self._stages[-1].done = count()
                self._view.update(self._stages, event="progress")

        thread = threading.Thread(target=poll, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def finish(self, stage: str, examples: int, dead: int) -> None:
        """End a stage's line."""
        line = self._stages[-1]
        line.done, line.seconds = line.total, line.elapsed()
        line.examples, line.dead = examples, dead
        self._view.update(self._stages, event="finish")


def seconds_between_counts(total: int, *, on_store: bool) -> float:
    """Seconds from one count of a folder to the next: on a store, less than a request a second."""
    pages = 1 + total * FILES_EACH // files.PAGE_NAMES
    return PAGE_SECONDS * (1 + pages) if on_store else POLL_SECONDS


class _LiveView:
    """A line for each stage, redrawn by a thread, so that a slow stage is seen to be alive."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._names = list(names)
        self._stages: list[_StageLine] = []
        self._began = time.monotonic()
        self._spinner = Spinner("dots", style="bold cyan")
        self._failed = False
        self._live = Live(console=console, refresh_per_second=FRAMES_A_SECOND, get_renderable=self._table)
        self._live.start()
        # The handlers hold the stream of before: their words would run into the lines.
        self._streams = [
            (handler, handler.setStream(sys.stderr))
            for handler in logging.getLogger().handlers
            if type(handler) is logging.StreamHandler
        ]

    def update(self, stages: list[_StageLine], *, event: str) -> None:
        self._stages = list(stages)
        if event != "progress":
            self._live.refresh()

    def close(self, *, failed: bool) -> None:
        self._failed = failed
        self._live.stop()
        for handler, stream in self._streams:
            if stream is not None:
                handler.setStream(stream)
        if not failed:
            self._console.print(self._summary())

    def _table(self) -> Table:
        gap = 2 if self._console.width >= ROOMY else 1
        table = Table.grid(padding=(0, gap, 0, 0))
        for width, justify in COLUMNS:
            table.add_column(min_width=width, justify=justify, no_wrap=True)
        bar_width = min(30, max(8, self._console.width - sum(width + gap for width, _ in COLUMNS) - 2))
        for stage in self._stages:
            table.add_row(self._name(stage), *_cells(stage, bar_width))
        begun = {stage.name for stage in self._stages}
        for name in self._names:
            if name not in begun:
                table.add_row(Text(f"  {name}", "dim"))
        return table

    def _name(self, stage: _StageLine) -> Text | Spinner:
        if stage.finished:
            return Text(f"✓ {stage.name}", "green")
        if self._failed:
            return Text(f"✗ {stage.name}", "bold red")
        self._spinner.update(text=Text(stage.name, "bold"))
        return self._spinner

    def _summary(self) -> Text:
        made = [stage.name for stage in self._stages if stage.made]
        dead = sum(stage.dead for stage in self._stages)
        if not made:
            return Text("nothing to do: all was made before", "green")
        examples = next((stage.examples for stage in reversed(self._stages) if stage.examples), 0)
        words = f"made in {_duration(time.monotonic() - self._began)}: {examples:,} examples"
        return Text(f"{words}, ", "bold green") + Text(f"{dead:,} dead letters", "red" if dead else "green")


def _cells(stage: _StageLine, bar_width: int) -> list[Text | ProgressBar]:
    """Give what follows a stage's name: bar, count, pace, time, dead letters."""
    count = f"{stage.done:,}/{stage.total:,} {stage.unit}"
    if not stage.finished:
        waiting = stage.done == stage.before
        bar = ProgressBar(stage.total or 1, stage.done, width=bar_width, pulse=waiting)
        remaining = stage.remaining()
        clock = _duration(stage.elapsed()) if remaining is None else f"{_duration(remaining)} left"
        return [bar, Text(count), Text("" if waiting else _pace(stage.rate()), "dim"), Text(clock, "cyan")]
    bar = ProgressBar(1, 1, width=bar_width)
    if stage.examples:
        count = f"{stage.examples:,} examples"
    pace = ""
    if stage.examples and not stage.before and stage.made:
        pace = _pace(stage.examples / max(stage.elapsed(), 1e-9))
    clock = _duration(stage.elapsed()) if stage.made else "as it was"
    dead = Text(f"{stage.dead:,} dead", "bold red") if stage.dead else Text("")
    return [bar, Text(count), Text(pace, "dim"), Text(clock, "cyan" if stage.made else "dim"), dead]


def _pace(rate: float) -> str:
    """Say how many a second, or how many seconds for each of slow ones."""
    if rate < 0.1:
        return f"{_duration(1 / max(rate, 1e-9))} each"
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


def _duration(seconds: float) -> str:
    """Say a time in the two largest of its units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} m {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} m"


class _LineView:
    """One line when a stage begins and ends, and one now and then in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = 0.0

    def update(self, stages: list[_StageLine], *, event: str) -> None:
        now = time.monotonic()
        if event == "progress" and now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        stage = stages[-1]
        words = [f"{stage.name}: {stage.done}/{stage.total} {stage.unit}"]
        if event == "progress":
            remaining = stage.remaining()
            words.append(f"{stage.rate():.2f}/s")
            words.append("" if remaining is None else f"{remaining:.0f} s left")
        elif event == "finish":
            words += [
                f"{stage.examples} examples" if stage.examples else "",
                f"{stage.dead} dead",
                f"{stage.elapsed():.1f} s",
            ]
        self._console.print(", ".join(word for word in words if word), highlight=False)

    def close(self, *, failed: bool) -> None: ...


class _JsonView:
    """A JSON object a line on standard output."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, stages: list[_StageLine], *, event: str) -> None:
        now = time.monotonic()
        if event == "progress" and now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        stage = stages[-1]
        values = {
            "event": event,
            "time": time.time(),
            "stage": stage.name,
            "unit": stage.unit,
            "done": stage.done,
            "total": stage.total,
            "seconds": round(stage.elapsed(), 2),
        }
        if event == "finish":
            values |= {"examples": stage.examples or 0, "dead": stage.dead}
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()

    def close(self, *, failed: bool) -> None: ...
