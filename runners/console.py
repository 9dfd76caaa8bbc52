"""Shows a run's progress: live lines in a terminal, plain lines or JSON lines elsewhere."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LogFormat = Literal["auto", "plain", "json"]

UNITS = {"ingest": "sources", "shards": "shards"}

POLL_SECONDS = 0.5
PLAIN_SECONDS = 10.0


class _Stage:
    """What is shown of one stage."""

    def __init__(self, name: str, done: int, total: int) -> None:
        self.name = name
        self.unit = UNITS.get(name, "parts")
        self.before = self.done = done
        self.total = total
        self.began = time.monotonic()
        self.seconds = 0.0
        self.examples: int | None = None
        self.dead = 0

    def rate(self) -> float:
        """Units made a second, by this run."""
        return (self.done - self.before) / max(self.elapsed(), 1e-9)

    def elapsed(self) -> float:
        """Seconds since the stage began, up to its end."""
        return self.seconds or time.monotonic() - self.began

    def remaining(self) -> float | None:
        """Seconds that are left at this rate; None before anything was made."""
        return (self.total - self.done) / self.rate() if self.done > self.before else None


class _View(Protocol):
    def update(self, stages: list[_Stage], *, event: str) -> None: ...

    def close(self) -> None: ...


class ConsoleProgress:
    """A `Progress` for people and for log collectors; open it as a context."""

    def __init__(self, console: Console, log_format: LogFormat = "auto") -> None:
        self._stages: list[_Stage] = []
        if log_format == "json":
            self._view: _View = _JsonView()
        elif log_format == "auto" and console.is_terminal:
            self._view = _LiveView(console)
        else:
            self._view = _PlainView(console)

    def __enter__(self) -> "ConsoleProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._view.close()

    def start(self, stage: str, done: int, total: int) -> None:
        """Begin a stage's line."""
        self._stages.append(_Stage(stage, done, total))
        self._view.update(self._stages, event="start")

    @contextmanager
    def watch(self, stage: str, count: Callable[[], int]) -> Iterator[None]:
        """Count on while a job runs."""
        stop = threading.Event()

        def poll() -> None:
            while not stop.wait(POLL_SECONDS):
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


class _LiveView:
    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)
        self._live.start()

    def update(self, stages: list[_Stage], *, event: str) -> None:
        table = Table.grid(padding=(0, 2))
        for stage in stages:
            table.add_row(*_cells(stage))
        self._live.update(table, refresh=event != "progress")

    def close(self) -> None:
        self._live.stop()


def _cells(stage: _Stage) -> list[Text | ProgressBar]:
    finished = stage.examples is not None
    made = stage.total > stage.before
    bar = ProgressBar(stage.total or 1, stage.done if stage.total else 1, width=24)
    count = f"{stage.done}/{stage.total} {stage.unit}"
    pace = f"{stage.rate():.1f}/s" if made and stage.done > stage.before else ""
    remaining = stage.remaining()
    if finished:
        clock = f"{stage.elapsed():.0f} s" if made else "as it was"
    else:
        clock = f"{remaining:.0f} s left" if remaining is not None else f"{stage.elapsed():.0f} s"
    out = f"{stage.examples} examples" if stage.examples else ""
    dead = Text(f"{stage.dead} dead" if finished else "", "red" if stage.dead else "dim")
    name = Text(("✓ " if finished else "· ") + stage.name, "green" if finished else "bold")
    return [name, bar, Text(count), Text(pace, "dim"), Text(clock, "cyan"), Text(out), dead]


class _PlainView:
    """One line when a stage begins and ends, and one now and then in between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = 0.0

    def update(self, stages: list[_Stage], *, event: str) -> None:
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

    def close(self) -> None: ...


class _JsonView:
    """A JSON object a line on standard output."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, stages: list[_Stage], *, event: str) -> None:
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

    def close(self) -> None: ...
