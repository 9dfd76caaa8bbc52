"""The base class of kinds: how the driver plans, makes, checks and verifies the output of a stage."""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic

from tagmill.pipeline import checks
from tagmill.pipeline.accounts import read_footers
from tagmill.pipeline.checks import Check
from tagmill.pipeline.job import Job
from tagmill.pipeline.plan import StagePlan, Upstream
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import (
    RunFolder,
    committed_parts,
    lone_leftovers,
    named_parts,
    supersede_part,
)
from tagmill.tag_system.core import files
from tagmill.tag_system.core.errors import DamageError
from tagmill.transforms.parts import Footer
from tagmill.transforms.stage import Stage, StageT

_log = logging.getLogger(__name__)


class Kind(ABC, Generic[StageT]):
    """The steps that the driver takes with a stage, in this order. A kind has no state of its own."""

    unit: ClassVar[str] = "parts"
    """What is counted while a stage is made."""

    def check(self, stage: StageT, inputs: Sequence[Stage[Any]], run: RunFolder) -> None:
        """Check what a stage takes from elsewhere, before anything is made; most take nothing.

        Raises ConfigError, and DamageError.
        """

    @abstractmethod
    def plan(
        self, stage: StageT, generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[StageT]:
        """Find out which parts exist, which can be used, and which must be made; writes nothing."""

    def begin(self, plan: StagePlan[StageT]) -> None:  # most kinds have nothing to write
        """Write what planning found out about the inputs, before anything is made."""

    @abstractmethod
    def make_way(self, plan: StagePlan[StageT], run: RunFolder) -> None:
        """Move files that must be made again away, before any worker starts: workers only create files.

        Their records are removed first, so that an interruption cannot leave a record of a missing file.
        """

    @abstractmethod
    def jobs(self, plan: StagePlan[StageT]) -> Iterator[Job]:
        """Give the jobs that make what is missing, in order; the first one may be a small trial."""

    def total(self, plan: StagePlan[StageT]) -> int:
        """Count the units that there will be."""
        return len(plan.names)

    def count_done(self, plan: StagePlan[StageT]) -> int:
        """Count the finished units in the folder, whatever the engine reports."""
        return len(committed_parts(plan.folder) & set(plan.names))

    @abstractmethod
    def finish(self, plan: StagePlan[StageT], upstream: Upstream) -> dict[str, PartRecord]:
        """Check that a stage is complete, publish its output, and give its records.

        Raises RuntimeError if a job ended without an output, and DamageError for one that was not asked for.
        """

    def review(self, plan: StagePlan[StageT], record: StageRecord, upstream: Upstream) -> None:
        """Look at what a finished stage found, before the next begins.

        Raises ConfigError if the config cannot have been meant so.
        """
        if not plan.is_whole:
            dropped: Counter[str] = Counter()
            for part in record.parts.values():
                dropped.update(part.counts.dropped)
            for line in plan.stage.doubts(dropped, record.count("example", "in")):
                _log.warning("%s: %s", plan.stage.name, line)

    def files(self, plan: StagePlan[StageT]) -> dict[str, str]:
        """Give the digests of what lies in the folder of a finished stage besides its parts, by name."""
        return {}

    def tables(self, plan: StagePlan[StageT], record: StageRecord) -> dict[str, Callable[[], bytes]]:
        """Give what makes the tables beside the record of a finished stage, by what they are of: what is
        known from its files, and wanted again without opening them.
        """
        return {}

    def checks(self, folder: str, record: StageRecord) -> dict[str, Check]:
        """Give the checks of the files that a record speaks of, by their names in the generation's folder.

        All that lies there besides is too much.
        """
        return {name: check for part in record.parts.values() for name, check in checks.of_part(part).items()}


def require(plan: StagePlan[Any], missing: list[str]) -> None:
    """Raise RuntimeError if outputs are missing."""
    if missing:
        names = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise RuntimeError(f"{plan.stage.name}: the job left out {len(missing)} outputs: {names}")


def served(plan: StagePlan[Any]) -> dict[str, PartRecord]:
    """Give the records of what stays or was adopted, in order."""
    return {name: plan.done[name] for name in plan.names if name in plan.done}


def find_strays(plan: StagePlan[Any]) -> list[str]:
    """Name the parts that lie in the folder and are not among those that it will have; lists the folder."""
    listed = files.list_names(plan.folder)
    plan.strays = sorted(named_parts(listed) - set(plan.names))
    return listed


def made_footers(plan: StagePlan[Any]) -> dict[str, Footer]:
    """Read the footers of the parts that were to be made. Raises RuntimeError if one is missing."""
    names = [task.name for task in plan.tasks]
    there = committed_parts(plan.folder)
    require(plan, [name for name in names if name not in there])
    return read_footers(plan.folder, names)


def check_made(plan: StagePlan[Any], footers: Mapping[str, Footer], came: Mapping[str, int]) -> None:
    """Check that parts are what was asked for: a worker of an earlier attempt may have been the first.

    `came` are the rows that had to be there. Raises DamageError.
    """
    expected = {task.name: task.fingerprint for task in plan.tasks}
    for name, footer in footers.items():
        header = footer.header
        if header.fingerprint != expected[name]:
            raise DamageError(f"{header.stage}/{name} was made by another config; run again")
        if came.get(name, 0) & ~header.rows:
            raise DamageError(f"{header.stage}/{name} was made for fewer rows; run again")


def move_parts_away(plan: StagePlan[Any], run: RunFolder, again: Iterable[str], stale: Iterable[str]) -> None:
    """Forget the parts `again` and adopted ones; move `stale` ones, and what lost its part, away."""
    # A part that somebody removed is forgotten too: what comes in its place may say something else.
    run.forget_parts(plan.stage.name, plan.generation, {*again, *plan.adopted, *plan.strays})
    # Files without their part were made by what may have changed since; workers would leave them.
    for name in [*stale, *plan.strays, *lone_leftovers(plan.folder)]:
        supersede_part(plan.folder, name)
