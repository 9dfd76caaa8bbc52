"""Planning: which parts of which stages must be made, and why.

One rule serves first runs, resumes, new input and changed configs: a part is made if it is not there, or if
its fingerprint is not the one that its inputs and config now give.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tagmill.pipeline.run_folder import (
    PartRecord,
    RunFolder,
    StageRecord,
    committed_parts,
    read_headers,
)
from tagmill.pipeline.sources import FoundSource
from tagmill.transforms import files, parts
from tagmill.transforms.digests import value_digest
from tagmill.transforms.stage import GlobalStage, PartStage, PartTask, Stage, libraries, part_fingerprint

CLUSTERS = "clusters.parquet"


@dataclass
class StagePlan:
    """What a stage has and what it still needs.

    `names` are the parts that it will have, in order, as far as they are known; `tasks` what must be made;
    `done` the records of the parts that stay. `unknown` says that inputs are still to be made, so more may
    follow; `unfinished` that what is written around the parts is missing or stale.
    """

    stage: Stage[Any]
    generation: str
    folder: str
    names: list[str]
    done: dict[str, PartRecord]
    tasks: list[Any]
    reasons: list[str] = field(default_factory=list)
    unknown: bool = False
    unfinished: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Tell whether there is nothing to do."""
        return not (self.tasks or self.unknown or self.unfinished)


@dataclass
class Upstream:
    """What is known of the stages before one: their plans, and their records once they are finished."""

    run: RunFolder
    plans: dict[str, StagePlan] = field(default_factory=dict)
    records: dict[str, StageRecord] = field(default_factory=dict)
    sources: dict[str, FoundSource] = field(default_factory=dict)
    """The source of every part of ingest."""

    def names(self) -> list[str]:
        """Name the parts of ingest, in order."""
        return list(self.records["ingest"].parts)

    def part_inputs(self, inputs: list[str], name: str) -> dict[str, str]:
        """Say where the inputs of a part lie."""
        where = {}
        for stage in inputs:
            plan = self.plans[stage]
            is_table = stage == "cluster"
            where[stage] = (
                files.join(plan.folder, CLUSTERS) if is_table else parts.part_uri(plan.folder, name)
            )
        return where

    def is_open(self, inputs: list[str]) -> bool:
        """Tell whether some input is still to be made."""
        return any(name not in self.records for name in inputs)


def generation_of(stage: Stage[Any], inputs: Mapping[str, str], *, strict_versions: bool) -> str:
    """Name the generation of a stage, from its meaning and its inputs' generations."""
    meaning = {
        "stage": stage.name,
        "version": stage.version,
        "meaning": stage.meaning,
        "inputs": dict(inputs),
    }
    if strict_versions:
        meaning["libraries"] = libraries()
    return value_digest(meaning)[:12]


def plan_parts(stage: PartStage[Any], generation: str, inputs: list[str], upstream: Upstream) -> StagePlan:
    """Plan a stage that makes one part from the same-named parts of its inputs."""
    folder = upstream.run.generation(stage.name, generation)
    plan = StagePlan(stage, generation, folder, [], {}, [])
    if upstream.is_open(inputs):
        plan.unknown = True
        return plan
    plan.names = upstream.names()
    there = known_records(upstream.run, stage, generation, plan.names)
    clusters = ClusterSlices(upstream) if "cluster" in inputs else None
    for name in plan.names:
        digests: dict[str, Any] = {
            other: upstream.records[other].parts[name].digest for other in inputs if other != "cluster"
        }
        if clusters:
            digests["cluster"] = clusters.digest(name)
        fingerprint = part_fingerprint(stage, digests)
        if name in there and there[name].fingerprint == fingerprint:
            plan.done[name] = there[name]
            continue
        reason = "its inputs changed" if name in there else "not made yet"
        plan.reasons.append(f"{name}: {reason}")
        where = upstream.part_inputs(inputs, name)
        plan.tasks.append(PartTask(name, fingerprint, where, upstream.sources[name].images))
    return plan


def plan_global(stage: GlobalStage[Any], generation: str, inputs: list[str], upstream: Upstream) -> StagePlan:
    """Plan a stage that reads all parts at once: all of it, or nothing."""
    folder = upstream.run.generation(stage.name, generation)
    plan = StagePlan(stage, generation, folder, [], {}, [])
    if upstream.is_open(inputs):
        plan.unknown = True
        return plan
    plan.names = upstream.names()
    digests = [
        [name, *(upstream.records[other].parts[name].digest for other in inputs)] for name in plan.names
    ]
    fingerprint = part_fingerprint(stage, {"parts": digests})
    plan.more = {"fingerprint": fingerprint}
    record = upstream.run.read_record(stage.name, generation)
    if record and record.more["fingerprint"] == fingerprint and _is_there(stage, folder, plan.names):
        plan.done, plan.more = record.parts, record.more
        return plan
    plan.reasons = ["not made yet" if record is None else "its inputs changed"]
    plan.tasks = [
        PartTask(
            name,
            part_fingerprint(stage, {other: upstream.records[other].parts[name].digest for other in inputs}),
            upstream.part_inputs(inputs, name),
            upstream.sources[name].images,
        )
        for name in plan.names
    ]
    return plan


def _is_there(stage: GlobalStage[Any], folder: str, names: list[str]) -> bool:
    if stage.name == "cluster":
        return files.exists(files.join(folder, CLUSTERS))
    return set(names) <= committed_parts(folder)


def known_records(
    run: RunFolder, stage: Stage[Any], generation: str, names: list[str]
) -> dict[str, PartRecord]:
    """Gather the records of the parts that lie in a generation's folder.

    What the stage's record does not know is read from the footers, such as after an interruption.
    """
    folder = run.generation(stage.name, generation)
    there = committed_parts(folder) & set(names)
    record = run.read_record(stage.name, generation)
    known = {name: part for name, part in (record.parts if record else {}).items() if name in there}
    missing = sorted(there - set(known))
    return known | {name: PartRecord.of(header) for name, header in read_headers(folder, missing).items()}


class ClusterSlices:
    """Digests of the cluster rows that a part of clean depends on: those of its own tags."""

    def __init__(self, upstream: Upstream) -> None:
        self._rows: dict[str, str] = upstream.records["cluster"].more["rows"]
        plan = upstream.plans["embed"]
        headers = read_headers(plan.folder, upstream.names())
        self._tags = {name: header.notes["tags"] for name, header in headers.items()}

    def digest(self, name: str) -> list[list[str]]:
        """List tag and digest of every cluster row that matters for a part."""
        return [[tag, self._rows[tag]] for tag in self._tags[name]]


def stale_parts(plan: StagePlan) -> list[str]:
    """Name the parts that are there and must be made again."""
    there = committed_parts(plan.folder)
    return [task.name for task in plan.tasks if task.name in there]
