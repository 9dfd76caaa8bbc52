"""Progress of a run, for whoever watches; the engine only tells, `runners` decide how it is shown."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol


class Extent(NamedTuple):
    """How far a stage is: `done` of `total` units are in place, such as parts or sources."""

    done: int
    total: int
    unit: str


class Progress(Protocol):
    """Is told what happens."""

    def start(self, stage: str, extent: Extent) -> None:
        """A stage begins."""

    def watch(self, stage: str, count: Callable[[], int]) -> AbstractContextManager[None]:
        """While the context is open a job runs, and `count` tells how many are in place."""

    def finish(self, stage: str, examples: int, dead: int) -> None:
        """A stage is whole: so many examples came out, so many dead letters are among its units."""
