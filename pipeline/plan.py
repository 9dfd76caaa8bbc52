"""The plan of a stage, and what is known of the stages before it.

First runs, resumed runs, new input and changed configs follow one rule: a part is used again if it has the
fingerprint that its inputs and config now give, and was made for all rows that live now. A part that lies
elsewhere (`places`) is adopted, copied or linked; all other parts are made. Each kind of stage plans in its
own way, see `kinds`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic

from tagmill.pipeline.places import Adoption, Places
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder
from tagmill.pipeline.sources import FoundSource
from tagmill.pipeline.takedown import NOTE
from tagmill.tag_system.core import files
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.vocabulary import Vocabulary
from tagmill.transforms import parts
from tagmill.transforms.formats.base import InputConfig
from tagmill.transforms.stage import WORK, PartTask, Stage, StageT, slices_of


@dataclass
class StagePlan(Generic[StageT]):
    """What a stage has and what it still needs.

    Attributes:
        stage: The stage.
        generation: Name of its generation.
        folder: Folder of the generation.
        names: The parts that it will have, in order, as far as they are known.
        done: Records of the parts that stay or are adopted.
        tasks: What must be made.
        reasons: Why, one line for each part.
        adopted: Where adopted parts come from.
        origins: Folders of parts that are to be rewritten without some of their rows.
        strays: Parts that lie there of sources that were removed.
        unknown: Whether inputs are still to be made, so that more tasks may follow.
        touched: Names of the parts that may have to be made, where inputs are still to be; None if nobody can
            tell.
        expected: Of ingest, the parts that it will have once its tasks are done; None if nobody can tell.
        unfinished: What is to be done besides, such as to write a manifest that is missing or stale.
        more: What else the stage's kind records.
        state: What the stage's kind keeps from one of its steps to the next.
    """

    stage: StageT
    generation: str
    folder: str
    names: list[str]
    done: dict[str, PartRecord]
    tasks: list[Any]
    reasons: list[str] = field(default_factory=list)
    adopted: dict[str, Adoption] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    unknown: bool = False
    touched: set[str] | None = None
    expected: list[str] | None = None
    unfinished: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    state: Any = None

    def folder_of(self, name: str) -> str:
        """Name the folder that a part lies in, before and after it is adopted."""
        adoption = self.adopted.get(name)
        return self.folder if adoption is None else adoption.source

    @property
    def is_whole(self) -> bool:
        """Tell whether there is nothing to do."""
        return not (self.tasks or self.adopted or self.strays or self.unknown or self.unfinished)

    @property
    def is_known(self) -> bool:
        """Tell whether the stage's output is known without making anything."""
        return not (self.tasks or self.unknown or self.unfinished)


@dataclass
class Upstream:
    """What is known of a run and of the stages before the one that is planned.

    Attributes:
        run: The run's folder.
        inputs: The run's inputs.
        vocabulary: The run's vocabulary.
        accept_changes: Whether sources that changed are ingested again.
        retry: The dead letters that are tried again, by stage and reason; an empty reason is any.
        lenders: Other runs that parts are taken from.
        plans: Plans of the stages so far.
        records: Records of the finished ones.
        sources: The source of every part of the first stage.
        removed: Bitmap of the rows of each part that do not live after the last finished stage.
        rows: URI of the table that holds `removed`, written with the last record.
    """

    run: RunFolder
    inputs: Sequence[InputConfig]
    vocabulary: Vocabulary
    accept_changes: bool = False
    check_sources: bool = False
    retry: tuple[str, str] | None = None
    lenders: Sequence[RunFolder] = ()
    plans: dict[str, StagePlan[Any]] = field(default_factory=dict)
    records: dict[str, StageRecord] = field(default_factory=dict)
    sources: dict[str, FoundSource] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    rows: str = ""

    def begin_plan(self, stage: StageT, generation: str) -> StagePlan[StageT]:
        """Begin an empty plan of a stage's generation."""
        return StagePlan(stage, generation, self.run.generation(stage.name, generation), [], {}, [])

    def to_retry(self, stage: str, found: Mapping[str, PartRecord]) -> set[str]:
        """Name the parts of a stage whose dead letters are tried again."""
        if self.retry is None or self.retry[0] != stage:
            return set()
        reason = self.retry[1]
        return {
            name
            for name, part in found.items()
            for reasons in (part.counts.dead, part.counts.dead_captions)
            if (reason in reasons if reason else reasons)
        }

    def close(self, record: StageRecord) -> None:
        """Take in the record of a finished stage."""
        self.records[record.stage] = record
        if record.parts.keys() == self.sources.keys():
            self.removed = {name: part.removed for name, part in record.parts.items()}
            self.rows = record.rows

    @cached_property
    def places(self) -> Places:
        """Where parts can be taken from."""
        return Places(self.run, self.lenders)

    @property
    def has_excluded(self) -> bool:
        """Tell whether something was taken out of the run because it is excluded."""
        return any(NOTE in record.more for record in self.records.values())

    @property
    def first(self) -> StagePlan[Any]:
        """The plan of the stage that all parts come from."""
        return next(iter(self.plans.values()))

    def ingested_uri(self, name: str) -> str:
        """Name the file of a part of the first stage, where it lies now."""
        return parts.part_uri(self.first.folder_of(name), name)

    def names(self) -> list[str]:
        """Name the parts of the first stage, in order."""
        return list(self.records[self.first.stage.name].parts)

    def came(self) -> dict[str, int]:
        """Give the bitmap of the rows that come in now, by part."""
        return {name: rows & ~self.removed[name] for name, rows in self.ingested().items()}

    def ingested(self) -> dict[str, int]:
        """Give the bitmap of the rows that ingest has, by part."""
        return {name: part.made_for for name, part in self.records[self.first.stage.name].parts.items()}

    def digests(
        self, stage: Stage[Any], inputs: Iterable[str], name: str, *, before: bool = False
    ) -> dict[str, str]:
        """Give the digests of what a part depends on in the same-named parts of its inputs: as they are, or
        `before` rows were taken out of them.
        """
        return {
            other: self.records[other].parts[name].digest_of(stage.slices.get(other), before=before)
            for other in inputs
            if other not in stage.tables
        }

    def by_row(self, stage: Stage[Any], inputs: Iterable[str], name: str) -> dict[str, str]:
        """Read the digests for each row of the slices that a part depends on; see `digests.row_digests`."""
        found = {}
        for other, part_slice in slices_of(stage, inputs):
            uri = parts.part_uri(self.plans[other].folder_of(name), name)
            found[other] = parts.read_header(uri).by_row[part_slice]
        return found

    def task(
        self,
        stage: Stage[Any],
        inputs: Iterable[str],
        name: str,
        fingerprint: str,
        base: str = "",
        origin: str = "",
    ) -> PartTask:
        """Make the task of a part."""
        plans = {other: self.plans[other] for other in inputs}
        where = {other: plan.stage.output_uri(plan.folder, name) for other, plan in plans.items()}
        removed = self.rows if self.removed[name] else ""
        images = self.sources[name].images
        return PartTask(name, fingerprint, where, images, removed, base, origin=origin)

    def wait(self, plan: StagePlan[Any], inputs: Iterable[str]) -> StagePlan[Any]:
        """Note that a stage waits for inputs that are still to be made, and which parts that concerns."""
        plan.unknown = True
        names = self.names() if self.first.stage.name in self.records else self.first.expected
        if names is not None:
            plan.names = names
            found: set[str] = set()
            for other in (self.plans[name] for name in inputs):
                if other.unknown and other.touched is None:
                    return plan
                found |= other.touched or {task.name for task in other.tasks}
            plan.touched = found
        return plan

    def is_open(self, inputs: Iterable[str]) -> bool:
        """Tell whether some input is still to be made."""
        return any(name not in self.records for name in inputs)


def work(plan: StagePlan[Any]) -> str:
    """Name the folder for what is made on the way to a plan's output."""
    return files.join(plan.folder, WORK)


def generation_of(stage: Stage[Any], inputs: Mapping[str, str]) -> str:
    """Name the generation of a stage, from its spec and its inputs' generations."""
    spec = {
        "stage": stage.name,
        "version": stage.version,
        "spec": stage.spec,
        "inputs": dict(inputs),
    }
    return value_digest(spec)[:12]
