"""The stage that writes the dataset: shards of many parts, and the manifest that lists them."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import Any

from tagmill.pipeline import checks
from tagmill.pipeline.checks import Check
from tagmill.pipeline.cut import CUT, Cut, extend_cut, is_shrunk, read_cut
from tagmill.pipeline.job import Job
from tagmill.pipeline.kinds.base import Kind, require
from tagmill.pipeline.places import Adoption, Place
from tagmill.pipeline.plan import StagePlan, Upstream, work
from tagmill.pipeline.records import PartRecord, StageRecord
from tagmill.pipeline.run_folder import RunFolder, supersede
from tagmill.tag_system import shard_contract as contract
from tagmill.tag_system.core import files, notes
from tagmill.tag_system.core.digests import value_digest
from tagmill.tag_system.core.errors import ConfigError, DamageError
from tagmill.tag_system.core.stores import StoreError
from tagmill.tag_system.sample_counts import SampleCounts
from tagmill.transforms import bitmaps, parquet, stopwatch
from tagmill.transforms.dataset_files import NAMES, dataset_files
from tagmill.transforms.parts import Counts
from tagmill.transforms.shards import Shards, ShardTask, ShardWorker, index_uri, tar_uri
from tagmill.transforms.stage import Stage, libraries


class ShardFiles(Kind[Shards]):
    """Writes shards and their manifest. The parts of each shard are noted, so new input only adds shards."""

    unit = "shards"

    def plan(
        self, stage: Shards, generation: str, inputs: list[str], upstream: Upstream
    ) -> StagePlan[Shards]:
        """Look for the shards that are not there, or whose examples changed."""
        plan = upstream.begin_plan(stage, generation)
        # A stage that is no input may still take examples away.
        if upstream.is_open(takewhile(lambda name: name != stage.name, upstream.plans)):
            plan.unknown = True
            return plan
        came = upstream.came()
        counts = _splits(stage, upstream, came)
        cut = extend_cut(_cut_before(stage, plan.folder, counts, upstream), counts, stage.config.size)
        plan.more = {"cut": cut}
        plan.names = [shard["name"] for shard in cut]
        there = _known_shards(upstream.run, stage, generation, plan.names)
        stock = _ShardStock(upstream.places.of(stage.name, generation), plan.names)
        for shard in cut:
            task = _task(stage, shard, inputs, upstream, came)
            known = there.get(task.name)
            if known and known.fingerprint == task.fingerprint:
                plan.done[task.name] = known
            elif found := stock.find(task.name, task.fingerprint):
                plan.done[task.name], plan.adopted[task.name] = found
            else:
                plan.tasks.append(task)
                plan.reasons.append(f"{task.name}: {'its examples changed' if known else 'not written yet'}")
        plan.unfinished = "" if _is_finished(plan, upstream) else "write the manifest again"
        return plan

    def make_way(self, plan: StagePlan[Shards], run: RunFolder) -> None:
        """Remove the manifest, as the dataset is no longer whole, and move stale shards away."""
        files.remove(files.join(plan.folder, contract.MANIFEST))
        again = [*(task.name for task in plan.tasks), *plan.adopted]
        run.forget_parts(plan.stage.name, plan.generation, set(again))
        for name in again:
            _supersede(plan.folder, name)
        files.replace_bytes(files.join(plan.folder, CUT), notes.dump({"shards": plan.more["cut"]}))

    def jobs(self, plan: StagePlan[Shards]) -> Iterator[Job]:
        """Give one job."""
        if plan.tasks:
            yield Job.of_worker(plan.tasks, ShardWorker(plan.stage, plan.folder))

    def count_done(self, plan: StagePlan[Shards]) -> int:
        """Count the shards whose index is written."""
        return len(files.list_names(plan.folder, ".index.parquet"))

    def finish(self, plan: StagePlan[Shards], upstream: Upstream) -> dict[str, PartRecord]:
        """Write the files around the shards and, last, the manifest, which says how all stages were set."""
        missing = [t.name for t in plan.tasks if not files.exists(index_uri(plan.folder, t.name))]
        require(plan, missing)
        headers = _index_headers(plan.folder, plan.names)
        for tar in files.list_names(plan.folder, ".tar"):
            if tar.removesuffix(".tar") not in headers:
                _supersede(plan.folder, tar.removesuffix(".tar"))
        manifest = _manifest(headers, plan.stage, upstream)
        for name, data in dataset_files(manifest, upstream.vocabulary).items():
            files.replace_bytes(files.join(plan.folder, name), data)
        seconds = {name: known.seconds for name, known in plan.done.items()}
        spent = stopwatch.noted(work(plan))
        seconds |= {task.name: spent.get(task.fingerprint, {}) for task in plan.tasks}
        files.remove(work(plan))
        return {name: _record_of(name, header, seconds.get(name)) for name, header in headers.items()}

    def files(self, plan: StagePlan[Shards]) -> dict[str, str]:
        """Give the digests of what is written around the shards."""
        return {name: files.sha256(files.join(plan.folder, name)) for name in (*NAMES, CUT)}

    def checks(self, folder: str, record: StageRecord) -> dict[str, Check]:
        """Give the checks of tars, by the digest that is a shard's, and of indexes, by its seal."""
        return {name: check for part in record.parts.values() for name, check in _checks_of(part).items()}


def _splits(stage: Shards, upstream: Upstream, came: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Count the examples of each split that live, by part; a stage noted it of those that it let out."""
    counts: dict[str, dict[str, int]] = {}
    for name, part in upstream.records[stage.counted_by].parts.items():
        counts[name] = part.notes["splits"]
        if part.living != came[name]:  # a filter came after
            table = parquet.read_table(upstream.ingested_uri(name), ["row", "split"])
            living = [r["split"] for r in table.to_pylist() if came[name] >> r["row"] & 1]
            counts[name] = dict(Counter(living))
    return counts


def _cut_before(
    stage: Shards, folder: str, counts: Mapping[str, Mapping[str, int]], upstream: Upstream
) -> Cut:
    """Read where the parts were cut before.

    A new generation takes over a cut that is right as it stands, or was before what is excluded left it:
    else all later shards would be others, and with them what was made of shards.
    """
    uri = files.join(folder, CUT)
    if files.exists(uri):
        return read_cut(uri)
    current = upstream.run.current(stage.name)
    uri = files.join(upstream.run.generation(stage.name, current), CUT) if current else ""
    if current and files.exists(uri):
        cut = read_cut(uri)
        extended = extend_cut(cut, counts, stage.config.size)
        is_right = extended == cut or (upstream.has_excluded and is_shrunk(extended, cut))
        return cut if is_right else []
    return []


def _checks_of(shard: PartRecord) -> dict[str, Check]:
    """Give the checks of a shard's files, by their names."""
    tar, index = f"{shard.name}.tar", f"{shard.name}.index.parquet"
    return {tar: checks.digested(shard.digest), index: checks.sealed(shard.seal)}


class _ShardStock:
    """The shards that lie elsewhere."""

    def __init__(self, places: Iterable[Place], names: list[str]) -> None:
        self._places = places
        self._names = names
        self._found: list[tuple[Place, dict[str, dict[str, Any]]]] | None = None

    def find(self, name: str, fingerprint: str) -> tuple[PartRecord, Adoption] | None:
        """Find a shard of this name that was made in just this way."""
        if self._found is None:
            self._found = [(place, _index_headers(place.folder, self._names)) for place in self._places]
        for place, headers in self._found:
            header = headers.get(name)
            if header and header["fingerprint"] == fingerprint:
                shard = _record_of(name, header)
                found = _checks_of(shard)
                return shard, place.adoption_of(list(found), header["bytes"], found)
        return None


def _is_finished(plan: StagePlan[Shards], upstream: Upstream) -> bool:
    """Tell whether what is written around the shards is there, lists just these, and says what holds now."""
    if not {*NAMES, CUT} <= set(files.list_names(plan.folder)):
        return False
    try:
        data = files.read_bytes(files.join(plan.folder, contract.MANIFEST))
        manifest = contract.parse_manifest(data, plan.folder)
    except ConfigError:
        return False
    inputs = {name: told.examples for name, told in manifest.inputs.items()}
    now = _of_run(plan.stage, upstream, inputs)
    if any(getattr(manifest, name) != value for name, value in now.items()):
        return False
    return {shard.name: shard.sha256 for shard in manifest.shards} == {
        name: record.digest for name, record in plan.done.items()
    }


def _of_run(stage: Shards, upstream: Upstream, inputs: Mapping[str, int]) -> dict[str, Any]:
    """Give what the manifest says of the run, beside what its shards do; `inputs` counts their examples."""
    left_out = {name: lost for name, record in upstream.records.items() if (lost := record.losses())}
    return {
        "date": stage.config.date,
        "inputs": {
            one.name: contract.ManifestInput(format=one.format, examples=inputs.get(one.name, 0))
            for one in upstream.inputs
        },
        "left_out": left_out,
    }


def _task(
    stage: Shards, shard: dict[str, Any], inputs: list[str], upstream: Upstream, came: Mapping[str, int]
) -> ShardTask:
    digests = [
        [name, upstream.digests(stage, inputs, name) | {"rows": bitmaps.dump(came[name]).hex()}]
        for name in shard["parts"]
    ]
    made_by = {"stage": stage.name, "version": stage.version, "spec": stage.spec}
    fingerprint = value_digest({**made_by, "shard": shard["name"], "parts": digests})
    tasks = [upstream.task(stage, inputs, name, fingerprint) for name in shard["parts"]]
    return ShardTask(shard["name"], shard["split"], fingerprint, tasks)


def _known_shards(run: RunFolder, stage: Shards, generation: str, names: list[str]) -> dict[str, PartRecord]:
    """Give the records of the shards that are whole; those that the stage's record does not list are read."""
    folder = run.generation(stage.name, generation)
    listed = set(files.list_names(folder))
    record = run.read_record(stage.name, generation)
    there = _whole(names, listed)
    known = {name: record.parts[name] for name in there if name in record.parts} if record else {}
    headers = _index_headers(folder, [name for name in there if name not in known], listed)
    return known | {name: _record_of(name, header) for name, header in headers.items()}


def _whole(names: Iterable[str], listed: Collection[str]) -> list[str]:
    return [name for name in names if f"{name}.index.parquet" in listed and f"{name}.tar" in listed]


def _index_headers(
    folder: str, names: list[str], listed: Collection[str] | None = None
) -> dict[str, dict[str, Any]]:
    there = _whole(names, set(files.list_names(folder)) if listed is None else listed)
    with ThreadPoolExecutor(files.THREADS) as pool:
        headers = pool.map(lambda name: _read_index_header(folder, name), there)
        return dict(zip(there, headers, strict=True))


def _read_index_header(folder: str, name: str) -> dict[str, Any]:
    """Read what a shard's index says of the shard: fingerprint, split, examples, bytes, sha256.

    The seal of the index's own bytes is added. Raises DamageError if it cannot be read, and
    FileNotFoundError.
    """
    uri = index_uri(folder, name)
    try:
        tail = parquet.read_tail(uri)
        header: dict[str, Any] = json.loads(tail.metadata[parquet.METADATA_KEY])
    except (FileNotFoundError, StoreError):
        raise
    except (OSError, ValueError, KeyError) as error:
        raise DamageError(f"{uri} cannot be read ({error}); remove it and run again") from error
    return header | {"seal": tail.seal}


def _record_of(
    name: str, header: Mapping[str, Any], seconds: Mapping[str, float] | None = None
) -> PartRecord:
    """Make a shard's record; its digest is the sha256 of the tar, its seal that of the index."""
    rows = bitmaps.first(header["examples"])
    return PartRecord(
        name,
        header["fingerprint"],
        header["sha256"],
        header["seal"],
        header["bytes"],
        beside={},
        base="",
        slices={},
        counts=Counts(header["examples"], 0, {}, {}, {}),
        notes={},
        seconds=dict(seconds or {}),
        made_for=rows,
        came=rows,
    )


def _supersede(folder: str, name: str) -> None:
    supersede(folder, index_uri(folder, name), tar_uri(folder, name))


def _manifest(
    headers: Mapping[str, Mapping[str, Any]], stage: Shards, upstream: Upstream
) -> contract.Manifest:
    """List the shards, and say how the stages were set."""
    shards = [
        contract.ManifestShard(
            name=name,
            split=header["split"],
            examples=header["examples"],
            bytes=header["bytes"],
            sha256=header["sha256"],
        )
        for name, header in headers.items()
    ]
    examples: Counter[str] = Counter()
    counts = SampleCounts()
    for shard in shards:
        examples[shard.split] += shard.examples
        counts.update(headers[shard.name])
    stages = [plan.stage for plan in upstream.plans.values()]
    return contract.Manifest(
        layout=contract.LAYOUT,
        vocabulary=upstream.vocabulary.digest,
        tags=len(upstream.vocabulary),
        examples=dict(examples),
        **counts.told() | _of_run(stage, upstream, counts.inputs),
        shards=shards,
        models=_models(stages),
        made_by={
            "stages": {stage.name: stage.spec | {"config": stage.settings} for stage in stages},
            "libraries": libraries(),
        },
    )


def _models(stages: Iterable[Stage[Any]]) -> dict[str, contract.ManifestModel]:
    """Name the models that gave evidence: each by its stage, as samples do."""
    return {
        stage.name: contract.ManifestModel(
            stage=stage.name, name=stage.settings["model"], fingerprint=stage.spec["model"]
        )
        for stage in stages
        if "model" in stage.spec
    }
