"""Stages that read all parts at once: all of their output is made again, or none of it."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from tagmill.pipeline.accounts import account, read_footers
from tagmill.pipeline.job import Job
from tagmill.pipeline.kinds.base import Kind, find_strays, made_footers, move_parts_away, require, served
from tagmill.pipeline.places import Adoption, Place
from tagmill.pipeline.plan import StagePlan, Upstream, work
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder, committed_parts, supersede_part
from tagmill.tag_system.core import files
from tagmill.transforms import bitmaps, parts, stopwatch
from tagmill.transforms.stage import GlobalStage, part_fingerprint

GlobalStageT = TypeVar("GlobalStageT", bound=GlobalStage[Any])


class Global(Kind[GlobalStageT]):
    """The common base of `GlobalParts` and `Table`.

    One fingerprint in the record covers the whole output. Workers write into a work folder.
    """

    def plan(
        self, stage: GlobalStageT, generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[GlobalStageT]:
        """Look for a generation that was made of just this."""
        plan = upstream.begin_plan(stage, generation)
        if upstream.is_open(inputs):
            return upstream.wait(plan, inputs)
        came = upstream.came()
        plan.names = upstream.names()
        digests = {
            name: upstream.digests(stage, inputs, name) | {"rows": bitmaps.dump(came[name]).hex()}
            for name in plan.names
        }
        fingerprint = part_fingerprint(stage, {"parts": list(digests.items())})
        plan.more = {"fingerprint": fingerprint}
        own = Place(upstream.run, stage.name, generation)
        for place in chain([own], upstream.places.of(stage.name, generation)):
            record = place.record
            if record and record.more["fingerprint"] == fingerprint and self.is_there(record, place.folder):
                plan.more = dict(record.more)
                plan.done = {
                    name: part.with_removed(upstream.removed[name] | part.lost)
                    for name, part in record.parts.items()
                }
                if place is not own:
                    plan.adopted = self.adoptions(record, place)
                return plan
        plan.reasons = ["not made yet" if own.record is None else "its inputs changed"]
        plan.tasks = [
            upstream.task(stage, inputs, name, part_fingerprint(stage, digests[name])) for name in plan.names
        ]
        return plan

    @abstractmethod
    def is_there(self, record: StageRecord, folder: str) -> bool:
        """Tell whether the files are there that a record speaks of."""

    @abstractmethod
    def adoptions(self, record: StageRecord, place: Place) -> dict[str, Adoption]:
        """Name the files of a place that are to be adopted."""

    def make_way(self, plan: StagePlan[GlobalStageT], run: RunFolder) -> None:
        """Forget the record: it speaks of all parts at once, and would of a half-published mixture."""
        run.forget_all(plan.stage.name, plan.generation)
        files.remove(work(plan))

    def jobs(self, plan: StagePlan[GlobalStageT]) -> Iterator[Job]:
        """Give one job, whose tasks are not independent of each other."""
        if plan.tasks:
            yield Job(plan.stage, plan.tasks, work(plan), partial(plan.stage.transform, work(plan)))

    def count_done(self, plan: StagePlan[GlobalStageT]) -> int:
        """Count the parts of this attempt."""
        return len(committed_parts(work(plan)) & set(plan.names))


class GlobalParts(Global[GlobalStage[Any]]):
    """Stages that write one part for each input part; an unchanged part keeps its file."""

    def plan(
        self, stage: GlobalStage[Any], generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[GlobalStage[Any]]:
        """Look for parts that were made of just this."""
        plan = super().plan(stage, generation, inputs, upstream)
        if not plan.unknown:
            find_strays(plan)
        return plan

    def is_there(self, record: StageRecord, folder: str) -> bool:
        """Look for all parts."""
        return record.parts.keys() <= committed_parts(folder)

    def adoptions(self, record: StageRecord, place: Place) -> dict[str, Adoption]:
        """Name the files of all parts."""
        return {name: place.adoption(part) for name, part in record.parts.items()}

    def make_way(self, plan: StagePlan[Any], run: RunFolder) -> None:
        """Move the parts away that make way for adopted ones; others go when new ones come."""
        super().make_way(plan, run)
        there = committed_parts(plan.folder)
        move_parts_away(plan, run, (), [name for name in plan.adopted if name in there])

    def finish(self, plan: StagePlan[Any], upstream: Upstream) -> dict[str, PartRecord]:
        """Publish the new parts and account for their rows."""
        if not plan.tasks:
            return served(plan)
        plan.more["seconds"] = stopwatch.summed(work(plan))
        _publish(plan)
        made = {name: PartRecord.of(footer) for name, footer in made_footers(plan).items()}
        return account(plan.folder, upstream.ingested_uri, made, upstream.came(), upstream.removed)


def _publish(plan: StagePlan[Any]) -> None:
    """Move the parts of an attempt into place, where they differ from those that are there."""
    attempt, there = work(plan), committed_parts(plan.folder)
    require(plan, sorted(set(plan.names) - committed_parts(attempt)))
    new = {name: footer.header for name, footer in read_footers(attempt, plan.names).items()}
    old = read_footers(plan.folder, [name for name in plan.names if name in there])
    for name in plan.names:
        if name in old:
            # Rows are not part of a digest: with nothing dropped, more examples are the same table.
            header = old[name].header
            if (header.digest, header.rows) == (new[name].digest, new[name].rows):
                continue
            supersede_part(plan.folder, name)
        files.move(parts.part_uri(attempt, name), parts.part_uri(plan.folder, name))
    files.remove(attempt)
