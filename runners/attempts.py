"""What engines with worker processes share: a job that loses one runs again, a row that kills is left out."""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

from tagmill.models.guard import MAX_FAILURES
from tagmill.pipeline.job import Job
from tagmill.tag_system.core.errors import StoppedError
from tagmill.transforms.stage import PartTask
from tagmill.transforms.worker import PartWorker, Probe

ATTEMPTS = 3
"""How often a task is tried that its process dies at; what was committed before is not made again."""

MAX_LOST = MAX_FAILURES
"""Rows of one part that may kill their process, before that counts as a bug."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Death:
    """A process that died.

    Attributes:
        task: The name of the task that it was at, empty while it got ready, None if nobody knows.
        how: What ended it.
        node: The machine that it ran on, if it was another one.
    """

    task: str | None
    how: str
    node: str = ""

    @property
    def where(self) -> str:
        """Say on what machine, and at what."""
        node = f" on {self.node}" if self.node else ""
        if self.task is None:
            return node
        return node + (f" at {self.task}" if self.task else " while it got ready")


class PersistentEngine(ABC):
    """Runs jobs in worker processes, of which one may die without a word."""

    relief: ClassVar[str]
    """What to do where memory is short for so many worker processes."""

    def execute(self, job: Job) -> None:
        """Run one job. Raises RuntimeError with the worker's traceback if it fails, StoppedError if it dies.

        A job that loses a worker process, to a signal or for lack of memory, is run again. A part that loses
        its process each time is tried in halves, until the row is alone that kills it; without that row the
        part is made as ever.
        """
        died: Counter[str | None] = Counter()
        while deaths := self._attempt(job):
            for death in deaths:
                died[death.task] += 1
                count = f"(attempt {died[death.task]} of {ATTEMPTS})"
                _log.warning("%s: a worker process %s%s %s", job.name, death.how, death.where, count)
            for death in deaths:
                if died[death.task] < ATTEMPTS:
                    continue
                if not isinstance(job.worker, PartWorker) or not death.task:
                    raise StoppedError(self._last_word(job, death))
                died[death.task] = 0
                job = self._lose_row(job, job.worker, death)

    @abstractmethod
    def _attempt(self, job: Job) -> list[Death]:
        """Run a job; gives the processes that died, none if all is done. Raises RuntimeError."""

    @abstractmethod
    def close(self) -> None:
        """End what was started for jobs, at the latest when this process ends."""

    def _lose_row(self, job: Job, worker: PartWorker, death: Death) -> Job:
        """Find the row of a part that kills its process, and give the job that leaves it out."""
        task: PartTask = next(task for task in job.tasks if task.name == death.task)
        inputs = worker.stage.read(task)
        rows = [row for row in inputs.rows if str(row) not in task.lost]
        row = self._find_row(worker, task, rows)
        if row is None:
            raise StoppedError(self._last_word(job, death))
        others = {rows[len(rows) // 2], rows[-1]} - {row}
        if len(task.lost) == MAX_LOST or (
            others and all(self._dies(worker, task, rows, {o}) for o in others)
        ):
            raise StoppedError(
                f"{job.name}: its worker process {death.how}, and not at one row alone: after row {row} of "
                f"{task.name} at others too; what it runs is at fault, such as its model"
            )
        _log.warning("%s: %s, row %d of %s, is left out", job.name, inputs.key(row), row, task.name)
        lost = {**task.lost, str(row): f"a worker process that was at nothing else {death.how}"}
        tasks = [replace(task, lost=lost) if other is task else other for other in job.tasks]
        return replace(job, tasks=tasks)

    def _find_row(self, worker: PartWorker, task: PartTask, rows: list[int]) -> int | None:
        """Find the one row that kills its process, twice, when it is alone; None if none does."""
        suspects = rows
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            suspects = half if self._dies(worker, task, rows, half) else suspects[len(half) :]
        is_guilty = suspects and all(self._dies(worker, task, rows, suspects) for _ in range(2))
        return suspects[0] if is_guilty else None

    def _dies(self, worker: PartWorker, task: PartTask, rows: list[int], chosen: Collection[int]) -> bool:
        """Tell whether a new process dies at some rows of a part; the others keep their places."""
        lost = {**task.lost, **{str(row): "" for row in rows if row not in chosen}}
        probe = Job.of_worker([replace(task, lost=lost)], Probe(worker.stage, worker.folder))
        return any(death.task == task.name for death in self._attempt(probe))

    def _last_word(self, job: Job, death: Death) -> str:
        if death.task == "":
            hint = "its model cannot be loaded here, or memory is short for it"
        else:
            hint = f"most often memory is short: {self.relief}"
        return f"{job.name}: a worker process {death.how}{death.where}, {ATTEMPTS} times; {hint}"
