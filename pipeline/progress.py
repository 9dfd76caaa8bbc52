"""Progress of a run, for whoever watches; the engine only tells, `runners` decide how it is shown."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Is told what happens. Numbers are parts, except for ingest (source files) and shards (shards)."""

    def start(self, stage: str, done: int, total: int) -> None:
        """A stage begins with `done` of `total` in place."""

    def watch(self, stage: str, count: Callable[[], int]) -> AbstractContextManager[None]:
        """While the context is open a job runs, and `count` tells how many are in place."""

    def finish(self, stage: str, examples: int, dead: int) -> None:
        """A stage is whole: so many examples came out, so many dead letters are among its units."""
