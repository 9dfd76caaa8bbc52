"""The interface through which a run reports its progress; `runners` show it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol


class Extent(NamedTuple):
    """How far a stage is: `done` of `total` units, such as parts or sources, are finished."""

    done: int
    total: int
    unit: str


class Progress(Protocol):
    """Receives the progress of a run."""

    def start(self, stage: str, extent: Extent) -> None:
        """Note that a stage begins."""

    def watch(self, stage: str, count: Callable[[], int]) -> AbstractContextManager[None]:
        """Give a context that is open while a job runs; `count` gives the number of finished units."""

    def finish(self, stage: str, examples: int, dead: int) -> None:
        """Note that a stage is complete, how many examples it let out, and how many dead letters it has."""
